"""Where work is done, and when memory is short."""

import pytest
import torch

from lora_lightning.models import device
from lora_lightning.models.planner import RESERVE, Card


class Properties:
    """A GPU as torch describes one; this machine has none."""

    def __init__(self, gib):
        self.total_memory = int(gib * 2**30)


@pytest.mark.parametrize(("gib", "low"), [(8, True), (24, True), (39.9, True), (40, False), (80, False)])
def test_low_vram_is_below_forty_gigabytes(monkeypatch, gib, low):
    monkeypatch.setattr(torch.cuda, "get_device_properties", lambda _: Properties(gib))
    assert device.wants_low_vram("auto", torch.device("cuda", 0)) is low
    assert device.wants_low_vram(not low, torch.device("cuda", 0)) is not low


def test_the_cpu_is_never_short_of_vram_unless_told():
    assert not device.wants_low_vram("auto", torch.device("cpu"))
    assert device.wants_low_vram(True, torch.device("cpu"))


def test_a_card_has_room_for_what_is_smaller_than_what_it_has_free(monkeypatch, tmp_path):
    (tmp_path / "encoder").mkdir()
    (tmp_path / "encoder" / "a.safetensors").write_bytes(bytes(700))
    (tmp_path / "encoder" / "tokens.json").write_bytes(bytes(700))
    (tmp_path / "b.safetensors").write_bytes(bytes(300))
    files = [tmp_path / "encoder", tmp_path / "b.safetensors"]
    assert device.has_room(torch.device("cpu"), files)
    for bytes_, room in ((1000, True), (999, False)):
        monkeypatch.setattr(device, "card_here", lambda _, free=bytes_ + RESERVE: Card(free))
        assert device.has_room(torch.device("cuda", 0), files) is room


def test_a_card_is_what_is_free_or_allowed_whichever_is_less(monkeypatch):
    assert device.card_here(torch.device("cpu")) is None
    told = {"mem_get_info": (6 << 30, 24 << 30), "memory_reserved": 2 << 30, "get_device_capability": (8, 9)}
    for name, value in told.items():
        monkeypatch.setattr(torch.cuda, name, lambda _, value=value: value)
    for share, gib in ((1.0, 8), (0.25, 6)):
        monkeypatch.setattr(torch.cuda, "get_per_process_memory_fraction", lambda _, share=share: share)
        assert device.card_here(torch.device("cuda", 0)) == Card(gib << 30, (8, 9))


def test_memory_of_this_process_is_told_in_mebibytes():
    assert 100 < device.peak_memory_mib(torch.device("cpu")) < 100_000


def test_what_is_drawn_inside_is_not_missed_outside():
    torch.manual_seed(0)
    wanted = torch.rand(3)
    torch.manual_seed(0)
    with device.isolated_rng():
        torch.manual_seed(99)
        torch.rand(5)
    assert torch.equal(torch.rand(3), wanted)
