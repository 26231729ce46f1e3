"""The other captioners: tiny random models of the real classes, saved and opened as checkpoints are."""

import csv
import json

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file, save_file

from lora_lightning.caption.base import Request, Sampling
from lora_lightning.caption.captioners import wd_tagger
from lora_lightning.caption.captioners.florence2 import task
from lora_lightning.caption.opening import open_captioner
from lora_lightning.datasets.images import open_rgb
from lora_lightning.errors import InputError, ModelError
from tests.caption import tiny_models

CPU = torch.device("cpu")
MAKERS = {
    "qwen2.5": lambda folder: tiny_models.qwen(folder, "2.5"),
    "qwen3": lambda folder: tiny_models.qwen(folder, "3"),
    "florence": tiny_models.florence,
    "blip": tiny_models.blip,
}
PROMPTS = ("Describe it.", "Describe this picture at some length, please.", "x")

pytestmark = pytest.mark.filterwarnings("ignore:Passing `min_pixels`:FutureWarning")


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    return {name: make(tmp_path_factory.mktemp(name)) for name, make in MAKERS.items()}


@pytest.fixture(scope="module")
def opened(folders):
    return {name: open_captioner(folder, CPU) for name, folder in folders.items()}


def requests(photos, sampling):
    return [Request(open_rgb(photos[2 + place]), prompt, place, sampling) for place, prompt in enumerate(PROMPTS)]


@pytest.mark.parametrize("name", MAKERS)
def test_a_batch_gives_what_each_picture_gives_alone(opened, photos, name):
    for sampling in (Sampling(0.0, 1.0, 8), Sampling(1.2, 0.9, 8)):
        asked = requests(photos, sampling)
        together = opened[name].describe(asked)
        assert together == [opened[name].describe([request])[0] for request in asked]
    assert len({answer.text for answer in together}) == 3
    assert all(answer.text for answer in together)


@pytest.mark.parametrize("name", MAKERS)
def test_a_loop_ends_its_row_and_the_others_go_on(opened, photos, name):
    calm, wild = requests(photos, Sampling(0.0, 1.0, 200))[0], requests(photos, Sampling(1.5, 1.0, 60))[1]
    (alone,) = opened[name].describe([calm])
    assert alone.end in ("looped", "done")
    assert len(alone.text) < 200
    assert opened[name].describe([wild])[0].end != "looped"


@pytest.mark.parametrize(
    ("name", "layers"), [("qwen2.5", "model.language_model.layers."), ("blip", "language_model.model.decoder.layers.")]
)
def test_only_the_language_model_is_quantised(folders, photos, name, layers):
    import bitsandbytes as bnb

    model = open_captioner(folders[name], CPU, "int8").model
    quantized = {path for path, module in model.named_modules() if isinstance(module, bnb.nn.Linear8bitLt)}
    linears = {path for path, module in model.named_modules() if isinstance(module, torch.nn.Linear)}
    assert quantized
    assert quantized == {path for path in linears if path.startswith(layers)}


def test_what_is_small_is_not_quantised(folders):
    with pytest.raises(InputError, match="quantize=nf4"):
        open_captioner(folders["florence"], CPU, "nf4")


def test_florence_does_its_most_detailed_task_for_a_free_prompt():
    assert task("<CAPTION>") == "<CAPTION>"
    assert task("Write a short caption.") == "<MORE_DETAILED_CAPTION>"


def test_qwens_picture_tokens_follow_the_pictures_size(opened):
    wide, small = Image.new("RGB", (300, 90)), Image.new("RGB", (56, 56))
    inputs = opened["qwen2.5"].inputs([Request(wide, "a"), Request(small, "a")])
    grids = inputs["image_grid_thw"].tolist()
    assert grids[1] == [1, 4, 4]
    assert inputs["mm_token_type_ids"].sum(dim=1).tolist() == [rows * columns // 4 for _, rows, columns in grids]
    assert len(inputs["pixel_values"]) == sum(rows * columns for _, rows, columns in grids)
    assert not (inputs["attention_mask"].diff(dim=1) < 0).any()  # padded on the left


def test_qwens_first_patch_is_the_pictures_corner_twice(opened):
    pixels = np.random.default_rng(0).integers(0, 256, (56, 56, 3), np.uint8)
    patch = opened["qwen2.5"].inputs([Request(Image.fromarray(pixels), "a")])["pixel_values"][0].view(3, 2, 14, 14)
    mean, std = (
        torch.tensor(opened["qwen2.5"].processor.pictures.__dict__[name]) for name in ("image_mean", "image_std")
    )
    corner = torch.from_numpy(pixels[:14, :14].copy()).permute(2, 0, 1) / 255
    expected = (corner - mean[:, None, None]) / std[:, None, None]
    torch.testing.assert_close(patch, expected[:, None].expand(3, 2, 14, 14), atol=1e-5, rtol=0)


def test_a_strip_that_qwen_would_refuse_is_described(opened):
    assert opened["qwen2.5"].describe([Request(Image.new("RGB", (900, 2)), "a", 0, Sampling(1.0, 1.0, 4))])


def test_a_prompt_with_qwens_own_picture_token_is_refused(opened):
    with pytest.raises(ModelError, match="one picture"):
        opened["qwen3"].text("what is <|image_pad|>?")


@pytest.fixture
def tagger_folder(tmp_path):
    """A ViT tagger of 9 tags whose answers are its head's biases, but for the weights given later."""
    torch.manual_seed(0)
    shapes = {"patch_embed.proj.weight": (64, 3, 8, 8), "patch_embed.proj.bias": (64,), "pos_embed": (1, 16, 64),
              "norm.weight": (64,), "norm.bias": (64,), "head.weight": (9, 64)}  # fmt: skip
    block = {"norm1.weight": (64,), "norm1.bias": (64,), "norm2.weight": (64,), "norm2.bias": (64,),
             "attn.qkv.weight": (192, 64), "attn.qkv.bias": (192,), "attn.proj.weight": (64, 64),
             "attn.proj.bias": (64,), "mlp.fc1.weight": (128, 64), "mlp.fc1.bias": (128,),
             "mlp.fc2.weight": (64, 128), "mlp.fc2.bias": (64,)}  # fmt: skip
    shapes |= {f"blocks.{number}.{name}": shape for number in range(2) for name, shape in block.items()}
    weights = {name: torch.randn(shape) * 0.05 for name, shape in shapes.items()}
    weights["head.bias"] = torch.linspace(4, -4, 9)
    save_file(weights, tmp_path / "model.safetensors")
    config = {"architecture": "vit_base_patch16_224", "model_args": {"act_layer": "gelu_tanh"}}
    (tmp_path / "config.json").write_text(json.dumps(config))
    names = ["general", "long_hair", "ganyu", "sensitive", ">_<", "red_car", "keqing", "explicit", "unlikely"]
    with (tmp_path / "selected_tags.csv").open("w", newline="") as file:
        rows = csv.writer(file)
        rows.writerow(["tag_id", "name", "category", "count"])
        rows.writerows((place, name, (9, 0, 4, 9, 0, 0, 4, 9, 0)[place], 1) for place, name in enumerate(names))
    return tmp_path


def test_a_tagger_names_the_likely_tags_in_words_without_ratings(tagger_folder):
    tagger = open_captioner(tagger_folder, CPU)
    (answer,) = tagger.describe([Request(Image.new("RGB", (20, 40)), "")])
    assert answer.text == "long hair, ganyu, >_<"


def test_a_taggers_vit_computes_what_its_equations_say(tagger_folder):
    """Dosovitskiy et al. 2020, equations 1 to 4, written out with matrix products."""
    weights = load_file(tagger_folder / "model.safetensors")
    pixels = torch.rand(2, 3, 32, 32) * 2 - 1

    def linear(x, name):
        return x @ weights[f"{name}.weight"].T + weights[f"{name}.bias"]

    def norm(x, name):
        centred = x - x.mean(-1, keepdim=True)
        scaled = centred / (centred.square().mean(-1, keepdim=True) + 1e-6).sqrt()
        return scaled * weights[f"{name}.weight"] + weights[f"{name}.bias"]

    patches = pixels.unfold(2, 8, 8).unfold(3, 8, 8).permute(0, 2, 3, 1, 4, 5).reshape(2, 16, -1)
    embedded = patches @ weights["patch_embed.proj.weight"].reshape(64, -1).T + weights["patch_embed.proj.bias"]
    x = embedded + weights["pos_embed"]
    for block in ("blocks.0", "blocks.1"):
        q, k, v = linear(norm(x, f"{block}.norm1"), f"{block}.attn.qkv").chunk(3, dim=-1)
        x = x + linear((q @ k.mT / 8).softmax(-1) @ v, f"{block}.attn.proj")
        hidden = torch.nn.functional.gelu(linear(norm(x, f"{block}.norm2"), f"{block}.mlp.fc1"), approximate="tanh")
        x = x + linear(hidden, f"{block}.mlp.fc2")
    expected = linear(norm(x, "norm").mean(1), "head")
    with torch.no_grad():
        torch.testing.assert_close(open_captioner(tagger_folder, CPU).model(pixels), expected, atol=1e-5, rtol=1e-5)


def test_a_tagger_sees_a_picture_padded_with_white_and_its_colours_reversed():
    pixels = wd_tagger.prepare(Image.new("RGB", (20, 40), (255, 0, 51)), 32)
    assert pixels[:, 16, 0].tolist() == [1.0, 1.0, 1.0]
    torch.testing.assert_close(pixels[:, 16, 16], torch.tensor([51 / 127.5 - 1, -1.0, 1.0]))


@pytest.mark.parametrize("damage", ["model.safetensors", "selected_tags.csv"])
def test_a_damaged_tagger_is_named(tagger_folder, damage):
    (tagger_folder / damage).write_bytes(b"none,of,it\n")
    with pytest.raises(ModelError, match="tagger"):
        open_captioner(tagger_folder, CPU)
