"""Exports for other trainers, read again the way those trainers do: nothing may be lost or changed on the way."""

import json
import re
import shutil

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image, ImageCms

from lora_lightning import plugins
from lora_lightning.datasets.images import open_rgb
from lora_lightning.datasets.importing import import_sources
from lora_lightning.datasets.store import Dataset
from lora_lightning.errors import DatasetError, InputError
from lora_lightning.workspace import Workspace
from tests.datasets.formats.foreign_readers import READERS

FORMATS = list(READERS)
CONFIGS = {
    "kohya": "dataset.toml",
    "ai_toolkit": "ai-toolkit.yaml",
    "diffusers": "metadata.jsonl",
    "simpletuner": "multidatabackend.json",
    "onetrainer": "concepts.json",
}
HOSTILE_CAPTIONS = (
    'a "quoted" \'sign\' reading \\"50 % off\\" \\n \\t \\u0041',
    "two\nlines\r\nand\x85three\u2028four",
    "ünïcödé 雪 🐕‍🦺 e\u0301 ﷽ עברית",
    '[general] key = "value" # no comment """ \'\'\'',
    "- yaml: {a: &x 1, b: *x} | > !!python/object %TAG @ `",
    '{"json": [null, true], "text": "}"}',
    "0001.png: looks like a list",
    "{red|blue} (weighted:1.3) BREAK, <lora:x:1> a__b",
    "2024-01-01",
    "null",
)


def export(name, dataset, output):
    return plugins.load("datasets/formats", name).export(dataset, output)


def pixels(image):
    return np.asarray(image)


def noise(seed, size=(20, 14), channels=3):
    return np.random.default_rng(seed).integers(0, 256, (size[1], size[0], channels), dtype=np.uint8)


@pytest.fixture(scope="module")
def hostile(tmp_path_factory, photos):
    """Pictures that trainers read differently, under names that trip them; half of the captions are missing."""
    home = tmp_path_factory.mktemp("hostile")
    folder, workspace = home / "pictures", Workspace.find(home / "workspace")
    for sub in ("", "a", "b"):
        (folder / sub).mkdir(exist_ok=True)
    exif = Image.Exif()
    exif[0x0112] = 6
    plain = Image.Exif()
    plain[0x010F] = "Camera"
    rgb = [Image.fromarray(noise(seed)) for seed in range(11)]
    rgb[0].save(folder / "a" / "IMG 1.JPG", "JPEG", exif=exif)
    rgb[1].save(folder / "b" / "img 1.jpg", "JPEG")
    rgb[2].save(folder / "dog_1_2_3_4.PNG", "PNG")
    rgb[3].save(folder / "dog.png")
    rgb[4].save(folder / "dog-masklabel.png")
    rgb[5].save(folder / "test-1.webp", lossless=True)
    rgb[6].save(folder / "собака 🐕.bmp")
    rgb[7].save(folder / "located.jpg", exif=plain)
    Image.fromarray(noise(20, channels=4)).save(folder / "alpha.png")
    Image.fromarray(np.linspace(0, 65535, 280).astype(np.uint16).reshape(14, 20)).save(folder / "deep.png")
    rgb[10].convert("CMYK").save(folder / "print.tiff")
    rgb[8].convert("L").save(folder / "gray.jpg")
    rgb[9].convert("P").save(folder / "palette.gif")
    shutil.copy(photos[3], folder / "chelsea.png")
    import_sources(workspace, "hostile", [folder])
    dataset = Dataset.open(workspace.dataset("hostile"))
    for number, picture in enumerate(dataset.pictures()):
        if picture.name == "dog.png" or (number % 2 == 0 and picture.name != "dog_1_2_3_4.PNG"):
            dataset.write_caption(picture.id, HOSTILE_CAPTIONS[number // 2 % len(HOSTILE_CAPTIONS)], author="human")
    return dataset


@pytest.fixture
def one(workspace, tmp_path):
    """A dataset of one picture without a caption."""
    Image.fromarray(noise(0)).save(tmp_path / "one.png")
    import_sources(workspace, "one", [tmp_path / "one.png"])
    return Dataset.open(workspace.dataset("one"))


def read_back(name, output):
    return sorted(READERS[name](output), key=lambda sample: sample.file)


def test_every_format_has_a_reader():
    assert set(plugins.names("datasets/formats")) == {*FORMATS, "seed", "sidecar"}


@pytest.mark.parametrize("name", FORMATS)
def test_the_trainer_reads_what_the_dataset_holds(name, hostile, tmp_path):
    written = export(name, hostile, tmp_path / "out")

    samples, pictures = read_back(name, tmp_path / "out"), hostile.pictures()
    assert [sample.caption for sample in samples] == [picture.caption for picture in pictures]
    assert len(pictures) == 14
    for sample, picture in zip(samples, pictures, strict=True):
        assert np.array_equal(pixels(sample.image), pixels(open_rgb(hostile.path(picture)))), picture.name
    assert set(written) == {path for path in (tmp_path / "out").rglob("*") if path.is_file()}


@pytest.mark.parametrize("name", FORMATS)
@pytest.mark.parametrize("caption", HOSTILE_CAPTIONS)
def test_a_caption_arrives_as_it_is(name, caption, one, tmp_path):
    stored = one.write_caption(1, caption, author="human").caption
    export(name, one, tmp_path / "out")
    assert [sample.caption for sample in READERS[name](tmp_path / "out")] == [stored]


@pytest.fixture(scope="module")
def trio(tmp_path_factory):
    """A small dataset of three, and a folder to export into."""
    home = tmp_path_factory.mktemp("trio")
    for seed in range(3):
        Image.fromarray(noise(seed, (4, 4))).save(home / f"{seed}.png")
    workspace = Workspace.find(home / "workspace")
    import_sources(workspace, "trio", sorted(home.glob("*.png")))
    return Dataset.open(workspace.dataset("trio")), home / "out"


@settings(max_examples=40, deadline=None)
@given(texts=st.lists(st.text(max_size=60), min_size=3, max_size=3))
def test_any_captions_survive_every_format(texts, trio):
    dataset, output = trio
    captions = [dataset.write_caption(id, text, author="human").caption for id, text in enumerate(texts, start=1)]
    for name in FORMATS:
        export(name, dataset, output)
        assert [sample.caption for sample in read_back(name, output)] == captions, name
        shutil.rmtree(output)


@pytest.mark.parametrize("name", FORMATS)
def test_pictures_are_plain_and_named_for_every_system(name, hostile, tmp_path):
    paths = [path for path in export(name, hostile, tmp_path / "out") if path.suffix in (".png", ".jpg")]
    assert [path.stem for path in paths] == [f"{number:04}" for number in range(1, 15)]
    for path in paths:
        with Image.open(path) as image:
            assert image.mode == "RGB"
            assert image.format == {".png": "PNG", ".jpg": "JPEG"}[path.suffix]
            assert not image.getexif()
            assert "transparency" not in image.info


@pytest.mark.parametrize("name", FORMATS)
def test_texts_are_one_line_in_utf8_without_a_mark(name, hostile, tmp_path):
    texts = [path.read_bytes() for path in export(name, hostile, tmp_path / "out") if path.suffix == ".txt"]
    captions = [picture.caption for picture in hostile.pictures()]
    expected = {"diffusers": [], "simpletuner": captions}.get(name, [caption for caption in captions if caption])
    assert [text.decode("utf-8") for text in texts] == expected
    assert not any(re.search(rb"[\r\n]|^\xef\xbb\xbf", text) for text in texts)


def test_untouched_originals_are_copied(hostile, tmp_path):
    export("onetrainer", hostile, tmp_path / "out")
    exported = {path.read_bytes() for path in (tmp_path / "out" / "images").iterdir()}
    copied = {p.name for p in hostile.pictures() if hostile.path(p).read_bytes() in exported}
    assert copied == {"img 1 (2).jpg", "dog.png", "dog-masklabel.png", "dog_1_2_3_4.PNG"}


@pytest.fixture(scope="module")
def swapped_profile():
    """An RGB profile with red and blue exchanged."""
    srgb = bytearray(ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes())
    tags = {bytes(srgb[at : at + 4]): at for at in range(132, 132 + 12 * int.from_bytes(srgb[128:132], "big"), 12)}
    red, blue = tags[b"rXYZ"], tags[b"bXYZ"]
    srgb[red + 4 : red + 12], srgb[blue + 4 : blue + 12] = srgb[blue + 4 : blue + 12], srgb[red + 4 : red + 12]
    return bytes(srgb).replace("sRGB".encode("utf-16-be"), "bgRS".encode("utf-16-be"))


@pytest.mark.parametrize(("file", "mode"), [("rgb.png", "RGB"), ("cmyk.tiff", "CMYK")])  # it does not fit CMYK
def test_a_colour_profile_is_applied_by_us_or_nobody(file, mode, swapped_profile, workspace, tmp_path):
    picture = Image.fromarray(noise(1)).convert(mode)
    picture.save(tmp_path / file, icc_profile=swapped_profile)
    import_sources(workspace, "colours", [tmp_path / file])
    dataset = Dataset.open(workspace.dataset("colours"))
    export("kohya", dataset, tmp_path / "out")
    expected = pixels(open_rgb(dataset.path(dataset.picture(1))))
    assert np.array_equal(pixels(READERS["kohya"](tmp_path / "out")[0].image), expected)
    assert np.array_equal(pixels(open_rgb(tmp_path / "out" / "images" / "1_colours" / "0001.png")), expected)
    assert np.array_equal(expected, pixels(picture.convert("RGB"))) == (mode == "CMYK")


@pytest.mark.parametrize("name", ["seed", *FORMATS])
def test_a_second_import_gives_the_same_captions(name, hostile, workspace, tmp_path):
    export(name, hostile, tmp_path / "out")
    report = import_sources(workspace, "again", [tmp_path / "out"])
    again = Dataset.open(workspace.dataset("again")).pictures()
    assert [picture.caption for picture in again] == [picture.caption for picture in hostile.pictures()]
    assert (len(report.accepted), report.changed) == (14, [])
    for old, new in zip(hostile.pictures(), again, strict=True):
        images = Dataset.open(workspace.dataset("again")).images
        assert np.array_equal(pixels(open_rgb(hostile.path(old))), pixels(open_rgb(images / new.file)))


@pytest.mark.parametrize("name", FORMATS)
def test_the_config_finds_the_pictures_whatever_the_folder_is_called(name, one, tmp_path):
    one.write_caption(1, "a dog", author="human")
    output = tmp_path / 'it\'s "1_2_3_4" #1 \\n \x7f [x] {y} ünï 🐕: test-1'
    export(name, one, output)
    assert [sample.caption for sample in READERS[name](output)] == ["a dog"]


def test_diffusers_trains_pictures_without_caption_on_the_instance_prompt(one, tmp_path):
    export("diffusers", one, tmp_path / "out")
    assert READERS["diffusers"](tmp_path / "out", "a photo of TOK")[0].caption == "a photo of TOK"


def test_kohya_takes_the_class_tokens_for_pictures_without_caption(one, tmp_path):
    export("kohya", one, tmp_path / "out")
    config = tmp_path / "out" / "dataset.toml"
    config.write_text(config.read_text().replace('class_tokens = ""', 'class_tokens = "TOK"'))
    assert READERS["kohya"](tmp_path / "out")[0].caption == "TOK"


@pytest.mark.parametrize("placeholder", ["[trigger]", "[name]"])
def test_ai_toolkit_refuses_captions_that_it_would_change(placeholder, one, tmp_path):
    one.write_caption(1, f"a sign with {placeholder} on it", author="human")
    with pytest.raises(DatasetError, match=re.escape(f"one.png contains {placeholder}")):
        export("ai_toolkit", one, tmp_path / "out")
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("name", FORMATS)
def test_a_taken_folder_stays_as_it_is(name, one, tmp_path):
    (tmp_path / "taken").mkdir()
    (tmp_path / "taken" / "mine.txt").write_text("mine")
    (tmp_path / "file").write_text("mine")
    for output in (tmp_path / "taken", tmp_path / "file", tmp_path / "file" / "below"):
        with pytest.raises(InputError, match=re.escape(str(output))) as error:
            export(name, one, output)
        assert error.value.hint
    assert [path.name for path in (tmp_path / "taken").iterdir()] == ["mine.txt"]
    assert (tmp_path / "file").read_text() == "mine"


@pytest.mark.parametrize("name", FORMATS)
def test_an_empty_folder_is_used(name, one, tmp_path):
    (tmp_path / "empty").mkdir()
    assert tmp_path / "empty" / CONFIGS[name] in export(name, one, tmp_path / "empty")
    assert (tmp_path / "empty").stat().st_mode & 0o777 == 0o755


@pytest.mark.parametrize("name", FORMATS)
@pytest.mark.parametrize("damage", ["cut", "gone"])
def test_a_damaged_original_leaves_nothing_behind(name, damage, hostile, tmp_path):
    dataset = Dataset.open(shutil.copytree(hostile.folder, tmp_path / "hostile"))
    last = dataset.path(dataset.pictures()[-1])
    if damage == "cut":
        last.write_bytes(last.read_bytes()[:40])
    else:
        last.unlink()
    with pytest.raises(DatasetError, match=last.name):
        export(name, dataset, tmp_path / "exports" / "out")
    assert list((tmp_path / "exports").iterdir()) == []


@pytest.mark.parametrize("name", FORMATS)
def test_an_empty_dataset_is_refused(name, workspace, tmp_path):
    with pytest.raises(DatasetError, match="'none' has no pictures"):
        export(name, Dataset.create(workspace.dataset("none")), tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_simpletuner_reads_one_id_a_backend(one, tmp_path):
    export("simpletuner", one, tmp_path / "out")
    backends = json.loads((tmp_path / "out" / "multidatabackend.json").read_text())
    assert [backend["id"] for backend in backends] == ["one", "one-text-embeds"]
