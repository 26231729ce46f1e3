"""Single files in BFL's and ComfyUI's layouts: the same model, bit for bit, and clear words where one does not fit."""

import shutil

import numpy as np
import pytest
import safetensors.torch
import torch
from diffusers import AutoencoderKL, FluxTransformer2DModel
from diffusers.loaders.single_file_utils import convert_flux_transformer_checkpoint_to_diffusers
from transformers import CLIPTextConfig, CLIPTextModel, T5Config, T5EncoderModel

from lora_lightning.errors import ModelError
from lora_lightning.models import bfl, source
from lora_lightning.models.base import open_family
from lora_lightning.models.config import PUBLISHED
from lora_lightning.models.sampling import Shot, draw

CPU = torch.device("cpu")
TO_BFL = {
    "time_text_embed.timestep_embedder.linear_1": "time_in.in_layer",
    "time_text_embed.timestep_embedder.linear_2": "time_in.out_layer",
    "time_text_embed.text_embedder.linear_1": "vector_in.in_layer",
    "time_text_embed.text_embedder.linear_2": "vector_in.out_layer",
    "time_text_embed.guidance_embedder.linear_1": "guidance_in.in_layer",
    "time_text_embed.guidance_embedder.linear_2": "guidance_in.out_layer",
    "time_guidance_embed.timestep_embedder.linear_1": "time_in.in_layer",
    "time_guidance_embed.timestep_embedder.linear_2": "time_in.out_layer",
    "time_guidance_embed.guidance_embedder.linear_1": "guidance_in.in_layer",
    "time_guidance_embed.guidance_embedder.linear_2": "guidance_in.out_layer",
    "context_embedder": "txt_in",
    "x_embedder": "img_in",
    "attn.to_out.0": "img_attn.proj",
    "attn.to_add_out": "txt_attn.proj",
    "ff.net.0.proj": "img_mlp.0",
    "ff.net.2": "img_mlp.2",
    "ff_context.net.0.proj": "txt_mlp.0",
    "ff_context.net.2": "txt_mlp.2",
    "ff.linear_in": "img_mlp.0",
    "ff.linear_out": "img_mlp.2",
    "ff_context.linear_in": "txt_mlp.0",
    "ff_context.linear_out": "txt_mlp.2",
    "norm1.linear": "img_mod.lin",
    "norm1_context.linear": "txt_mod.lin",
    "norm.linear": "modulation.lin",
    "modulation.linear": "modulation.lin",
    "modulation_img.linear": "modulation_img.lin",
    "modulation_txt.linear": "modulation_txt.lin",
    "attn.to_qkv_mlp_proj": "linear1",
}


def in_bfl_layout(model):
    """The inverse of what is tested, written out by hand: fused rows, exchanged halves, BFL's names."""
    left, made = dict(model.state_dict()), {}

    def fuse(name, *parts):
        for kind in ("weight", "bias"):
            if f"{parts[0]}.{kind}" in left:
                made[f"{name}.{kind}"] = torch.cat([left.pop(f"{part}.{kind}") for part in parts])

    for n in range(len(model.transformer_blocks)):
        ours, theirs = f"transformer_blocks.{n}.attn", f"double_blocks.{n}"
        fuse(f"{theirs}.img_attn.qkv", *(f"{ours}.to_{part}" for part in "qkv"))
        fuse(f"{theirs}.txt_attn.qkv", *(f"{ours}.add_{part}_proj" for part in "qkv"))
        for side, name in (("img", "norm_{}"), ("txt", "norm_added_{}")):
            for part, long in (("q", "query"), ("k", "key")):
                key = f"{theirs}.{side}_attn.norm.{long}_norm.scale"
                made[key] = left.pop(f"{ours}.{name.format(part)}.weight")
    for n in range(len(model.single_transformer_blocks)):
        ours, theirs = f"single_transformer_blocks.{n}", f"single_blocks.{n}"
        if f"{ours}.proj_mlp.weight" in left:
            fuse(f"{theirs}.linear1", *(f"{ours}.attn.to_{part}" for part in "qkv"), f"{ours}.proj_mlp")
            fuse(f"{theirs}.linear2", f"{ours}.proj_out")
        else:
            fuse(f"{theirs}.linear2", f"{ours}.attn.to_out")
        for part, long in (("q", "query"), ("k", "key")):
            made[f"{theirs}.norm.{long}_norm.scale"] = left.pop(f"{ours}.attn.norm_{part}.weight")
    for kind in ("weight", "bias"):
        if f"norm_out.linear.{kind}" in left:
            scale, shift = left.pop(f"norm_out.linear.{kind}").chunk(2)
            made[f"final_layer.adaLN_modulation.1.{kind}"] = torch.cat([shift, scale])
            if f"proj_out.{kind}" in left:
                made[f"final_layer.linear.{kind}"] = left.pop(f"proj_out.{kind}")
    for key, tensor in left.items():
        for ours, theirs in TO_BFL.items():
            if f"{ours}." in key:
                key = key.replace(f"{ours}.", f"{theirs}.")
                break
        key = key.replace("single_transformer_blocks", "single_blocks").replace("transformer_blocks", "double_blocks")
        made[key] = tensor
    return {key: tensor.clone() for key, tensor in made.items()}


def in_ldm_layout(vae):
    """A VAE as BFL's ae.safetensors has it: blocks as `down.N.block.M`, the decoder's counted from the end."""
    made, levels = {}, len(vae.config.block_out_channels)
    for key, tensor in vae.state_dict().items():
        side, _, rest = key.partition(".")
        rest = rest.replace("conv_norm_out", "norm_out").replace("conv_shortcut", "nin_shortcut")
        rest = rest.replace("mid_block.resnets.0", "mid.block_1").replace("mid_block.resnets.1", "mid.block_2")
        if "mid_block.attentions.0" in rest:
            rest = rest.replace("mid_block.attentions.0", "mid.attn_1").replace("group_norm", "norm")
            for ours, theirs in (("to_q", "q"), ("to_k", "k"), ("to_v", "v"), ("to_out.0", "proj_out")):
                rest = rest.replace(f".{ours}.", f".{theirs}.")
            if rest.endswith("weight") and ".norm." not in rest:
                tensor = tensor[:, :, None, None]
        for ours, theirs, resample in (("down_blocks", "down", "downsample"), ("up_blocks", "up", "upsample")):
            if rest.startswith(ours):
                _, n, kind, m, *name = rest.split(".")
                n = str(levels - 1 - int(n)) if theirs == "up" else n
                inside = f"block.{m}" if kind == "resnets" else resample
                rest = ".".join([theirs, n, inside, *name])
        made[f"{side}.{rest}"] = tensor.clone()
    return made


@pytest.fixture(scope="module")
def files(tiny_flux, tmp_path_factory):
    """The tiny model's parts as ComfyUI's users have them."""
    folder = tmp_path_factory.mktemp("files")
    transformer = FluxTransformer2DModel.from_pretrained(tiny_flux / "transformer")
    vae = AutoencoderKL.from_pretrained(tiny_flux / "vae")
    clip = CLIPTextModel.from_pretrained(tiny_flux / "text_encoder").state_dict()
    made = {
        "transformer": in_bfl_layout(transformer),
        "ae": in_ldm_layout(vae),
        "clip_l": {f"text_model.{key}": tensor for key, tensor in clip.items()},
        "t5xxl": T5EncoderModel.from_pretrained(tiny_flux / "text_encoder_2").state_dict(),
    }
    made["t5xxl"] = {key: tensor.clone() for key, tensor in made["t5xxl"].items() if "embed_tokens" not in key}
    paths = {name: folder / f"{name}.safetensors" for name in made}
    for name, tensors in made.items():
        safetensors.torch.save_file(tensors, paths[name])
    return {name: str(path) for name, path in paths.items()}


@pytest.fixture
def bare(tiny_flux, tmp_path):
    """The tiny model's folder without any weight."""
    return shutil.copytree(tiny_flux, tmp_path / "bare", ignore=shutil.ignore_patterns("*.safetensors"))


def test_four_files_make_the_same_model_bit_for_bit(flux, bare, files):
    family = open_family(str(bare), device=CPU, dtype=torch.float32, files=files)
    wanted, found = flux.load_transformer().state_dict(), family.load_transformer().state_dict()
    assert found.keys() == wanted.keys()
    assert all(torch.equal(found[key], wanted[key]) for key in wanted)
    texts = ["a red cup on a table", ""]
    assert all(map(torch.equal, family.encode_text(texts), flux.encode_text(texts)))
    pixels = torch.rand(1, 3, 48, 80) * 2 - 1
    assert all(map(torch.equal, family.encode_image(pixels), flux.encode_image(pixels)))
    shot = Shot("a red cup", seed=7, width=64, height=64, steps=2, guidance=3.5)
    text = flux.encode_text([shot.prompt])
    pictures = [draw(each.pipeline(each.load_transformer()), shot, text) for each in (flux, family)]
    assert np.array_equal(*map(np.asarray, pictures))


@pytest.mark.parametrize("prefix", ["", "model.diffusion_model."])
def test_one_file_stands_in_for_one_part(flux, tiny_flux, files, tmp_path, prefix):
    tensors = safetensors.torch.load_file(files["transformer"])
    other = {f"{prefix}{key}": 2 * tensor for key, tensor in tensors.items()}
    safetensors.torch.save_file(other, tmp_path / "doubled.safetensors")
    given = {"transformer": str(tmp_path / "doubled.safetensors"), "ae": "", "clip_l": "", "t5xxl": ""}
    family = open_family(str(tiny_flux), device=CPU, dtype=torch.bfloat16, files=given)
    plain = flux.load_transformer().state_dict()
    for key, tensor in family.load_transformer().state_dict().items():
        assert torch.equal(tensor, 2 * plain[key].bfloat16()), key
    assert family.image_encoder.folders == (tiny_flux.resolve() / "vae",)


@pytest.mark.parametrize("model", ["klein", "flux2"])
def test_a_flux2_transformer_comes_from_a_file_too(model, request, tmp_path):
    plain = request.getfixturevalue(model).load_transformer()
    safetensors.torch.save_file(in_bfl_layout(plain), tmp_path / "flux2.safetensors")
    files = {"transformer": str(tmp_path / "flux2.safetensors")}
    folder = request.getfixturevalue(f"tiny_{model}")
    found = open_family(str(folder), device=CPU, dtype=torch.float32, files=files).load_transformer().state_dict()
    assert found.keys() == plain.state_dict().keys()
    assert all(torch.equal(found[key], tensor) for key, tensor in plain.state_dict().items())


def test_names_and_rows_are_those_that_diffusers_makes_at_full_width():
    """Its own converter knows no other width: rows are compared by their numbers, one block of each kind."""
    config = {"num_layers": 1, "num_single_layers": 1, "guidance_embeds": True}
    with torch.device("meta"):
        model = FluxTransformer2DModel(**config)
        names = in_bfl_layout(model)
    numbered = {
        key: torch.arange(float(tensor.shape[0])).view(-1, *[1] * (tensor.ndim - 1)).expand(tensor.shape)
        for key, tensor in names.items()
    }
    ours = bfl.to_diffusers(numbered, bfl.FLUX1)
    theirs = convert_flux_transformer_checkpoint_to_diffusers(
        {key: tensor[..., :1] if tensor.ndim > 1 else tensor for key, tensor in numbered.items()}
    )
    assert ours.keys() == theirs.keys() == model.state_dict().keys()
    for key, tensor in ours.items():
        rows = tensor[..., 0] if tensor.ndim > 1 else tensor
        assert torch.equal(rows, theirs[key].flatten()), key


def test_every_module_is_found_again_in_either_direction():
    for layout in (bfl.FLUX1, bfl.FLUX2):
        holders = [*(f"double_blocks.3.{name}" for name in layout.double), *layout.outside]
        for holder in [*holders, *(f"single_blocks.7.{name}" for name in layout.single)]:
            parts = layout.split(holder)
            assert parts
            assert {layout.holder(part) for part in parts} == {holder}


def test_configurations_that_ship_are_those_of_the_published_models():
    """By the published numbers of parameters."""
    with torch.device("meta"):
        made = {
            name: FluxTransformer2DModel.from_config(
                FluxTransformer2DModel.load_config(source.CONFIGS / name / "transformer")
            )
            for name in ("dev", "schnell")
        }
        made["vae"] = AutoencoderKL.from_config(AutoencoderKL.load_config(source.CONFIGS / "dev" / "vae"))
        made["clip"] = CLIPTextModel(CLIPTextConfig.from_pretrained(source.CONFIGS / "dev" / "text_encoder"))
        made["t5"] = T5EncoderModel(T5Config.from_pretrained(source.CONFIGS / "dev" / "text_encoder_2"))
    counts = {name: sum(weight.numel() for weight in model.parameters()) for name, model in made.items()}
    assert counts == {
        "dev": 11_901_408_320,
        "schnell": 11_891_178_560,
        "vae": 83_819_683,
        "clip": 123_060_480,
        "t5": 4_762_310_656,
    }


@pytest.mark.parametrize(("base", "guided", "kind"), [
    ("dev", True, "FluxPipeline"),
    ("krea", True, "FluxPipeline"),
    ("kontext", True, "FluxKontextPipeline"),
    ("schnell", False, "FluxPipeline"),
])  # fmt: skip
def test_published_models_need_no_hub_page_when_all_weights_are_in_files(
    base, guided, kind, files, tiny_flux, monkeypatch
):
    """Only the tokenizers are fetched, from where anyone may."""
    asked = []

    def fetch(repo, patterns, *_):
        asked.append(repo)
        return tiny_flux / ("tokenizer" if "clip" in repo else "tokenizer_2")

    monkeypatch.setattr(source, "fetch", fetch)
    found = source.find_source(base, PUBLISHED[base], files)
    family = open_family(base, device=CPU, dtype=torch.float32, files=files)
    assert (found.pipeline, family.guided) == (kind, guided)
    assert set(asked) == {"openai/clip-vit-large-patch14", "google/t5-v1_1-xxl"}
    assert all((found.part(part) / "config.json").is_file() for part in source.PART_OF.values())


def scaled_fp8(tensors):
    return tensors | {"single_blocks.0.linear1.scale_weight": torch.ones(1)}


def shortened(tensors):
    return {key: tensor for key, tensor in tensors.items() if "single_blocks.1" not in key}


@pytest.mark.parametrize(
    ("harm", "said"),
    [(scaled_fp8, "quantised with scales of its own"), (shortened, "14 weights do not fit this model, such as single")],
)
def test_a_file_that_does_not_fit_is_named(tiny_flux, files, tmp_path, harm, said):
    path = tmp_path / "harmed.safetensors"
    safetensors.torch.save_file(harm(safetensors.torch.load_file(files["transformer"])), path)
    with pytest.raises(ModelError, match=said) as caught:
        open_family(
            str(tiny_flux), device=CPU, dtype=torch.float32, files={"transformer": str(path)}
        ).load_transformer()
    assert "harmed.safetensors" in caught.value.message
    assert caught.value.hint


def test_a_file_that_is_not_there_or_no_safetensors_is_named(tiny_flux, tmp_path):
    def opened(path):
        return open_family(str(tiny_flux), device=CPU, dtype=torch.float32, files={"ae": str(path)})

    with pytest.raises(ModelError, match=r"there is no file .*absent.* \(model.files.ae\)"):
        opened(tmp_path / "absent.safetensors")
    (tmp_path / "page.safetensors").write_text("<html>")
    with pytest.raises(ModelError, match=r"no readable .safetensors"):
        opened(tmp_path / "page.safetensors")


def test_weights_of_eight_bits_without_scales_are_read(tiny_flux, files, tmp_path):
    tensors = safetensors.torch.load_file(files["transformer"])
    packed = {key: tensor.to(torch.float8_e4m3fn) for key, tensor in tensors.items()}
    safetensors.torch.save_file(packed, tmp_path / "fp8.safetensors")
    family = open_family(
        str(tiny_flux), device=CPU, dtype=torch.bfloat16, files={"transformer": str(tmp_path / "fp8.safetensors")}
    )
    weight = family.load_transformer().state_dict()["x_embedder.weight"]
    assert torch.equal(weight, packed["img_in.weight"].bfloat16())
