import numpy as np
import pytest
import torch
from diffusers import FluxPipeline
from safetensors.torch import load_file, save_file

from lora_lightning.errors import InputError, LoraFileError
from lora_lightning.generate.library import LoraSource
from lora_lightning.generate.mix import Mix
from lora_lightning.generate.prompt import Lora
from lora_lightning.models.lora import delta_OI
from lora_lightning.models.sampling import Shot, draw

SHOT = Shot("a fox", 7, 64, 64, 3, 3.5)


@pytest.fixture
def pipeline(tiny_flux):
    made = FluxPipeline.from_pretrained(tiny_flux)
    made.set_progress_bar_config(disable=True)
    return made


@pytest.fixture
def picture(pipeline):
    sequence, pooled, _ = pipeline.encode_prompt("a fox", "a fox", max_sequence_length=32)
    from lora_lightning.models.base import TextEmbedding

    def of(pipeline):
        return np.asarray(draw(pipeline, SHOT, TextEmbedding(sequence, pooled)), dtype=int)

    return of


@pytest.fixture
def sources(make_lora):
    return {name: LoraSource(name, make_lora(name, seed)) for seed, name in enumerate(("ink", "v1.5-photo"), start=1)}


def test_without_loras_or_with_weights_of_zero_the_base_draws_bit_for_bit(pipeline, picture, sources):
    base = picture(pipeline)
    mix = Mix(pipeline, sources)
    for loras in ([], [Lora("ink", 0.0)], [Lora("ink", 0.0), Lora("v1.5-photo", 0.0)]):
        mix.use([Lora("ink", 1.0)])
        assert (picture(pipeline) != base).any()
        mix.use(loras)
        assert (picture(pipeline) == base).all()


def test_only_the_named_loras_act(pipeline, picture, sources, tiny_flux):
    mix = Mix(pipeline, sources)
    mix.use([Lora("ink", 1.0), Lora("v1.5-photo", 1.0)])
    mix.use([Lora("v1.5-photo", 0.7)])
    alone = FluxPipeline.from_pretrained(tiny_flux)
    alone.load_lora_weights(str(sources["v1.5-photo"].path), adapter_name="x")
    alone.set_adapters(["x"], [0.7])
    alone.set_progress_bar_config(disable=True)
    assert (picture(pipeline) == picture(alone)).all()


def test_two_loras_add_up_exactly(pipeline, sources):
    """Every linear gives W x + 0.8 B1 A1 x + (-0.5) B2 A2 x."""
    name, weights = "transformer_blocks.0.attn.to_q", {"ink": 0.8, "v1.5-photo": -0.5}
    linear = pipeline.transformer.get_submodule(name)
    x_BI = torch.randn(5, linear.in_features, generator=torch.Generator().manual_seed(0))
    expected = linear(x_BI)
    for lora, weight in weights.items():
        stored = load_file(sources[lora].path)
        a, b = (stored[f"transformer.{name}.lora_{side}.weight"] for side in "AB")
        expected = expected + weight * (x_BI @ a.T @ b.T)
    Mix(pipeline, sources).use([Lora(lora, weight) for lora, weight in weights.items()])
    torch.testing.assert_close(pipeline.transformer.get_submodule(name)(x_BI), expected, rtol=0, atol=1e-6)


def test_a_dora_acts_before_the_others_and_alone_of_its_kind(pipeline, sources, make_lora):
    """W x + delta_dora x + 0.5 delta_lora x, in whatever order they are named."""
    dora = LoraSource("dora", make_lora("dora", 3, kind="dora"))
    both = sources | {"dora": dora}
    mix = Mix(pipeline, both)
    mix.use([Lora("ink", 0.5), Lora("dora", 1.0)])
    layer = pipeline.transformer.get_submodule("transformer_blocks.0.attn.to_q")
    linear, adapter = layer.get_base_layer(), mix._adapters
    delta = delta_OI(layer, adapter["dora"]) + delta_OI(layer, adapter["ink"])
    x_BI = torch.randn(5, linear.in_features, generator=torch.Generator().manual_seed(0))
    expected = torch.nn.functional.linear(x_BI, linear.weight + delta, linear.bias)
    torch.testing.assert_close(layer(x_BI), expected, rtol=0, atol=1e-4)
    with pytest.raises(InputError, match="'dora' and 'again' are both DoRAs"):
        Mix(pipeline_like(pipeline), both | {"again": LoraSource("again", dora.path)}).use(
            [Lora("dora", 1.0), Lora("again", 1.0)]
        )


def pipeline_like(pipeline):
    pipeline.unload_lora_weights()
    return pipeline


def _truncated(path):
    path.write_bytes(path.read_bytes()[:500])


def _for_another_model(path):
    tensors = load_file(path)
    save_file({key: torch.zeros(2 * t.shape[0], 2 * t.shape[1]) for key, t in tensors.items()}, path)


def _of_stable_diffusion(path):
    key = "lora_unet_input_blocks_4_1_proj_in.lora_"
    save_file({f"{key}down.weight": torch.zeros(4, 64), f"{key}up.weight": torch.zeros(192, 4)}, path)


@pytest.mark.filterwarnings("ignore::RuntimeWarning")
@pytest.mark.parametrize("spoil", [_truncated, _for_another_model, _of_stable_diffusion])
def test_a_file_that_cannot_act_is_named(pipeline, make_lora, spoil):
    path = make_lora("spoilt")
    spoil(path)
    with pytest.raises(LoraFileError, match=r"spoilt\.safetensors") as caught:
        Mix(pipeline, {"spoilt": LoraSource("spoilt", path)})
    assert caught.value.hint
