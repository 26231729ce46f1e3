"""Each foreign trainer's way of reading a dataset, told again from its source, with what it breaks silently.

They stand in for five programs that cannot run here. Where a trainer chooses at random among captions, the reader
insists that there is only one to choose.
"""

import glob
import json
import os
import re
import tomllib
from dataclasses import dataclass
from pathlib import Path

import yaml
from PIL import Image, ImageOps


@dataclass(frozen=True)
class Sample:
    """What a trainer would train on."""

    file: str
    image: Image.Image
    caption: str


# sd-scripts: library/config_util.py (the schema refuses unknown keys), library/train_util.py
KOHYA_EXTENSIONS = (".png", ".jpg", ".jpeg", ".webp", ".bmp", ".PNG", ".JPG", ".JPEG", ".WEBP", ".BMP")
KOHYA_SUBSET = {
    "color_aug": bool, "flip_aug": bool, "num_repeats": int, "random_crop": bool, "shuffle_caption": bool,
    "keep_tokens": int, "enable_wildcard": bool, "caption_prefix": str, "caption_suffix": str,
    "caption_extension": str, "class_tokens": str, "cache_info": bool, "caption_dropout_rate": float,
}  # fmt: skip
KOHYA_DATASET = {
    "batch_size": int, "bucket_no_upscale": bool, "bucket_reso_steps": int, "enable_bucket": bool,
    "max_bucket_reso": int, "min_bucket_reso": int, "resolution": list,
}  # fmt: skip


def kohya(output):
    config = tomllib.loads((output / "dataset.toml").read_bytes().decode("utf-8"))
    general = config.pop("general")
    _check_schema(general, KOHYA_DATASET | KOHYA_SUBSET)
    samples = []
    for dataset in config.pop("datasets"):
        subsets = dataset.pop("subsets")
        _check_schema(dataset, KOHYA_DATASET | KOHYA_SUBSET)
        for subset in subsets:
            _check_schema(subset, KOHYA_SUBSET | {"image_dir": str, "is_reg": bool})
            options = general | dataset | subset
            assert os.path.isdir(options["image_dir"])
            assert options["num_repeats"] >= 1
            extension = options.get("caption_extension", ".caption")
            for path in _kohya_glob(options["image_dir"]):
                caption = _kohya_caption(path, extension)
                if caption is None:
                    caption = options.get("class_tokens", "")
                with Image.open(path) as image:  # no EXIF
                    samples.append(Sample(os.path.basename(path), image.convert("RGB"), caption))
    assert not config
    return samples


def _check_schema(values, schema):
    for key, value in values.items():
        assert type(value) is schema[key], key


def _kohya_glob(directory):
    found = [path for ext in KOHYA_EXTENSIONS for path in glob.glob(os.path.join(glob.escape(directory), "*" + ext))]
    return sorted(set(found))


def _kohya_caption(path, extension):
    base = os.path.splitext(path)[0]
    tokens = base.split("_")
    shorter = "_".join(tokens[:-4]) if len(tokens) >= 5 else base  # the caption of the picture that a face was cut from
    for candidate in (base + extension, shorter + extension):
        if os.path.isfile(candidate):
            with open(candidate, encoding="utf-8") as file:
                lines = file.readlines()
            assert lines, f"caption file is empty: {candidate}"
            return lines[0].strip()
    return None


# ai-toolkit: toolkit/dataloader_mixins.py, toolkit/prompt_utils.py
def ai_toolkit(output):
    config = yaml.safe_load((output / "ai-toolkit.yaml").read_text("utf-8"))["config"]
    (process,) = config["process"]
    assert process["type"] == "sd_trainer"
    assert isinstance(process["train"]["lr"], float)
    samples = []
    for dataset in process["datasets"]:
        for root, _, names in os.walk(dataset["folder_path"]):
            for name in names:
                if not name.lower().endswith((".jpg", ".jpeg", ".png", ".webp")) or name.startswith("."):
                    continue
                text = Path(root, os.path.splitext(name)[0] + "." + dataset["caption_ext"])
                caption = text.read_bytes().decode("utf-8") if text.exists() else dataset.get("default_caption", "")
                for placeholder in ("[name]", "[trigger]"):
                    caption = caption.replace(placeholder, process.get("trigger_word", ""))
                with Image.open(os.path.join(root, name)) as image:
                    samples.append(Sample(name, ImageOps.exif_transpose(image).convert("RGB"), caption))
    return samples


# datasets: data_files.py (splits by name), packaged_modules/folder_based_builder; diffusers: DreamBoothDataset
SPLITS = r"(?:^|[-._ 0-9/])(?:train|training|validation|valid|dev|val|test|testing|eval|evaluation)[-._ 0-9/]"


def diffusers(output, instance_prompt=""):
    names = sorted(
        path.relative_to(output).as_posix()
        for path in output.rglob("*")
        if path.is_file() and not any(part.startswith((".", "__")) for part in path.relative_to(output).parts)
    )
    assert not [name for name in names if re.search(SPLITS, name)], "only a part would be in the split `train`"
    suffixes = {os.path.splitext(name)[1] for name in names if name != "metadata.jsonl"}
    assert suffixes <= {".png", ".jpg"}, "another kind of file may change which builder is chosen"
    rows = [json.loads(line) for line in (output / "metadata.jsonl").read_bytes().decode("utf-8").split("\n") if line]
    assert all(set(row) == {"file_name", "text"} and type(row["text"]) is str for row in rows), "one type a column"
    texts = {row["file_name"]: row["text"] for row in rows}
    assert sorted(texts) == [name for name in names if name != "metadata.jsonl"], "every picture needs its row"
    samples = []
    for name, text in texts.items():
        with Image.open(output / name) as image:
            samples.append(Sample(name, ImageOps.exif_transpose(image).convert("RGB"), text or instance_prompt))
    return samples


# SimpleTuner: helpers/prompts.py, documentation/DATALOADER.md
def simpletuner(output):
    backends = json.loads((output / "multidatabackend.json").read_text("ascii"))
    assert len({backend["id"] for backend in backends}) == len(backends)
    assert [b["type"] for b in backends if b["dataset_type"] == "text_embeds" and b["default"]] == ["local"]
    samples = []
    for backend in (b for b in backends if b["dataset_type"] == "image"):
        assert (backend["type"], backend["caption_strategy"]) == ("local", "textfile")
        for path in Path(backend["instance_data_dir"]).rglob("*"):
            if path.suffix.lower() not in (".png", ".jpg", ".jpeg", ".webp", ".bmp", ".tiff", ".tif"):
                continue
            caption = path.with_suffix(".txt").read_bytes().decode("utf-8")  # FileNotFoundError when there is none
            if "\n" in caption:
                (caption,) = (line for line in caption.split("\n") if line)
            with Image.open(path) as opened:
                image = ImageOps.exif_transpose(opened).convert("RGB")
            if min(image.size) >= backend["minimum_image_size"]:
                samples.append(Sample(path.name, image, caption))
    return samples


# OneTrainer: CollectPaths (exclude_postfix), mgds LoadMultipleTexts
def onetrainer(output):
    samples = []
    for concept in json.loads((output / "concepts.json").read_text("ascii")):
        assert concept["enabled"]
        assert concept["text"]["prompt_source"] == "sample"
        for path in sorted(Path(concept["path"]).iterdir()):
            if path.suffix.lower() not in (".bmp", ".jpg", ".jpeg", ".png", ".tif", ".tiff", ".webp", ".avif"):
                continue
            if path.stem.endswith(("-masklabel", "-condlabel")):
                continue
            text = path.with_suffix(".txt")
            lines = text.read_text("utf-8").splitlines() if text.exists() else []
            (caption,) = [line.strip() for line in lines if line.strip()] or [""]
            with Image.open(path) as image:
                samples.append(Sample(path.name, ImageOps.exif_transpose(image).convert("RGB"), caption))
    return samples


READERS = {
    "kohya": kohya,
    "ai_toolkit": ai_toolkit,
    "diffusers": diffusers,
    "simpletuner": simpletuner,
    "onetrainer": onetrainer,
}
