"""Each page in a real browser: reached directly, on a small screen, in both themes, without the rest of the world."""

from urllib.error import HTTPError
from urllib.request import Request, urlopen

import pytest
from playwright.sync_api import expect

from lora_lightning.datasets.importing import import_sources

pytestmark = pytest.mark.browser

TITLES = {
    "": "LoRA Lightning",
    "datasets": "Datasets",
    "captions": "Captions",
    "train": "Train",
    "runs": "Runs",
    "run": "Run",
    "tensorboard": "TensorBoard",
    "generate": "Generate",
    "evaluate": "Evaluate",
    "publish": "Publish",
    "settings": "Settings",
}


@pytest.mark.parametrize("path", [path for path in TITLES if path])
def test_a_cold_deep_link_runs_the_navigation_first(dashboard, visit, path):
    visitor = visit(dashboard()).go(path)
    expect(visitor.page.get_by_role("heading", name=TITLES[path], level=1)).to_be_visible()
    expect(visitor.page.get_by_test_id("stSidebarNav").get_by_text("Prepare")).to_be_visible()
    expect(visitor.page).to_have_title("LoRA Lightning")
    assert visitor.errors == []


def test_every_page_is_whole_on_a_small_screen_and_asks_nobody_else(dashboard, visit, workspace, photos):
    import_sources(workspace, "photographs", photos[:3])
    server = dashboard()
    for scheme, width in (("light", 1280), ("dark", 375)):
        visitor = visit(server, width=width, scheme=scheme)
        for path, title in TITLES.items():
            visitor.go(path)
            expect(visitor.page.get_by_role("heading", name=title, level=1)).to_be_visible()
            wide = visitor.page.evaluate("document.querySelector('[data-testid=stMain]').scrollWidth")
            assert wide <= width, f"{path} is {wide} px wide on a screen of {width}"
        assert visitor.strangers == []
        assert visitor.errors == []
    assert "Traceback" not in server.log


def test_under_another_name_the_server_does_not_answer(dashboard, workspace):
    (workspace.output / "mine").mkdir(parents=True)
    workspace.lora("mine").write_bytes(b"weights")
    server = dashboard()
    file = f"{server.address}/files/output/mine/mine.safetensors"
    with urlopen(file) as answer:
        assert answer.read() == b"weights"
    with pytest.raises(HTTPError, match="400"):
        urlopen(Request(file, headers={"Host": "evil.example"}))


def test_thumbnails_arrive(dashboard, visit, workspace, photos):
    import_sources(workspace, "photographs", photos[:3])
    visitor = visit(dashboard()).go("datasets")
    pictures = visitor.page.locator(".ll-grid img")
    expect(pictures).to_have_count(3)
    for picture in pictures.all():
        picture.scroll_into_view_if_needed()
    visitor.page.wait_for_function(
        "[...document.querySelectorAll('.ll-grid img')].every(picture => picture.naturalWidth > 0)"
    )


def test_a_number_can_be_typed_as_people_write_learning_rates(dashboard, visit, workspace, photos):
    import_sources(workspace, "photographs", photos[:3])
    visitor = visit(dashboard()).go("train")
    visitor.fill("train.train.learning_rate", "3e-4")
    visitor.go("train")
    expect(visitor.page.get_by_role("spinbutton", name="Learning rate")).to_have_value("0.0003")
