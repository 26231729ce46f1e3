"""The theme is readable by the numbers of WCAG 2.2, level AA, in light and dark."""

import tomllib
from pathlib import Path

import pytest

from lora_lightning.ui import charts, menu

ROOT = Path(__file__).parents[2]
CONFIG = tomllib.loads((ROOT / ".streamlit" / "config.toml").read_text())
TEXT, GRAPHIC = 4.5, 3.0
WHITE = "#ffffff"


def luminance(colour: str) -> float:
    parts = [int(colour[place : place + 2], 16) / 255 for place in (1, 3, 5)]
    linear = [part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4 for part in parts]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


def contrast(first: str, second: str) -> float:
    low, high = sorted((luminance(first), luminance(second)))
    return (high + 0.05) / (low + 0.05)


@pytest.mark.parametrize("mode", ["light", "dark"])
def test_text_is_readable_on_every_ground(mode):
    theme = CONFIG["theme"][mode]
    sidebar = theme["sidebar"]["backgroundColor"]
    for ground in (theme["backgroundColor"], theme["secondaryBackgroundColor"], sidebar):
        assert contrast(theme["textColor"], ground) >= TEXT
        assert contrast(theme["linkColor"], ground) >= TEXT
        assert contrast(theme["grayTextColor"], ground) >= TEXT
    assert contrast(menu.ACCENT[mode], theme["backgroundColor"]) >= TEXT
    assert contrast(theme["blueTextColor"], theme["blueBackgroundColor"]) >= TEXT
    assert contrast(theme["grayTextColor"], theme["grayBackgroundColor"]) >= TEXT
    assert contrast(WHITE, theme["primaryColor"]) >= TEXT


@pytest.mark.parametrize("mode", ["light", "dark"])
def test_curves_stand_out_from_the_ground(mode):
    ground = CONFIG["theme"][mode]["backgroundColor"]
    for colour in charts.COLOURS:
        assert contrast(colour, ground) >= GRAPHIC, (colour, mode)


def test_the_dashboard_answers_this_machine_only_unless_told_otherwise():
    server = CONFIG["server"]
    assert server["address"] == "127.0.0.1"
    assert set(server["allowedHosts"]) == {"localhost", "127.0.0.1"}
    assert CONFIG["browser"]["gatherUsageStats"] is False
    assert "enableAgentApi" not in server
