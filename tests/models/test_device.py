"""Where work is done, and when memory is short."""

import pytest
import torch

from lora_lightning.models import device


class Card:
    """A GPU as torch describes one; this machine has none."""

    def __init__(self, gib):
        self.total_memory = int(gib * 2**30)


@pytest.mark.parametrize(("gib", "low"), [(8, True), (24, True), (39.9, True), (40, False), (80, False)])
def test_low_vram_is_below_forty_gigabytes(monkeypatch, gib, low):
    monkeypatch.setattr(torch.cuda, "get_device_properties", lambda _: Card(gib))
    assert device.wants_low_vram("auto", torch.device("cuda", 0)) is low
    assert device.wants_low_vram(not low, torch.device("cuda", 0)) is not low


def test_the_cpu_is_never_short_of_vram_unless_told():
    assert not device.wants_low_vram("auto", torch.device("cpu"))
    assert device.wants_low_vram(True, torch.device("cpu"))


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
