import hashlib
import shutil

import pytest

from lora_lightning.errors import LoraFileError
from lora_lightning.generate.library import LoraSource, find


def test_a_lora_is_found_by_name_or_by_file(make_lora, tmp_path):
    path = make_lora("ink")
    assert find("ink", {"ink": path}) == LoraSource("ink", path)
    copied = shutil.copy(path, tmp_path / "v1.5.safetensors")
    assert find(str(copied), {}) == LoraSource("v1.5", copied)


def test_an_unknown_lora_is_named_with_those_that_are_near(tmp_path):
    finished = {"ink-style": tmp_path, "ink-stylus": tmp_path, "photo": tmp_path}
    with pytest.raises(LoraFileError, match="'ink-stile'") as caught:
        find("ink-stile", finished)
    assert "'ink-style' or 'ink-stylus'" in caught.value.hint
    with pytest.raises(LoraFileError) as caught:
        find("zzz", finished)
    assert caught.value.hint == "Choose one of: ink-style, ink-stylus, photo."


def test_hashes_are_those_that_other_tools_show(make_lora):
    source = LoraSource("ink", make_lora("ink"))
    data = source.path.read_bytes()
    header = int.from_bytes(data[:8], "little")
    assert source.sha256 == hashlib.sha256(data).hexdigest()
    assert source.short_hash == hashlib.sha256(data[8 + header :]).hexdigest()[:12]
