import logging
import socket

import huggingface_hub.constants
import pytest
from diffusers import FluxPipeline

from lora_lightning.errors import JobError, PublishError, Stopped
from lora_lightning.publish import job
from lora_lightning.runs.job import perform, reserve
from tests.publish.conftest import NAME
from tests.publish.hub_server import READ_TOKEN, WRITE_TOKEN

REPO = f"tester/{NAME}"

# huggingface_hub 2.4 uploads in a way that httpx2 deprecates.
pytestmark = pytest.mark.filterwarnings("ignore:Use 'content=:DeprecationWarning")


@pytest.fixture
def publish(workspace):
    """Run the job in its real frame, in this process."""

    def run(made, watch=None):
        folder = reserve(workspace, "publish", made.name, made.to_yaml())

        def work(reporter):
            if watch:
                watch(reporter)
            return job.run(made, workspace, reporter)

        return perform(workspace, folder, work, needs_device=False)

    return run


@pytest.fixture
def impatient(monkeypatch):
    """huggingface_hub retries without the pauses between."""
    monkeypatch.setattr("huggingface_hub.utils._http.time.sleep", lambda seconds: None)


def stored(hub):
    files = hub.repo(REPO).files
    return {str(path.relative_to(files)) for path in files.rglob("*") if path.is_file()}


@pytest.mark.parametrize("private", [True, False], ids=["private", "public"])
def test_a_push_sends_the_lora_its_card_samples_and_recipe_and_nothing_else(hub, finish, publish, make_recipe, private):
    made = make_recipe(publish={"repo": REPO, "private": private}, sample={"prompts": ["a fox, MYSTYLE"]})
    folder = finish(made)
    (folder / "secret.txt").write_text("not for the world")
    (folder / "samples" / "notes.txt").write_text("nor this")

    outcome = publish(made)

    assert stored(hub) == {f"{NAME}.safetensors", "README.md", "recipe.yaml", "samples/0000600-0.png",
                           "samples/sheet.png"}  # fmt: skip
    assert hub.repo(REPO).meta["private"] is private
    assert outcome.report["url"] == f"{hub.url}/{REPO}"
    assert outcome.report["private"] is private
    assert outcome.report["commit"] == hub.repo(REPO).meta["sha"]
    sent = hub.repo(REPO).files / f"{NAME}.safetensors"
    assert sent.read_bytes() == (folder / f"{NAME}.safetensors").read_bytes()
    assert f'pipeline.load_lora_weights("{REPO}", ' in (hub.repo(REPO).files / "README.md").read_text()
    assert sum("/commit/" in request for request in hub.requests) == 1


def test_a_repository_is_private_unless_the_recipe_says_otherwise(hub, finish, publish, make_recipe):
    finish(make_recipe())
    assert publish(make_recipe()).report["private"] is True


def test_what_was_published_loads_from_the_hub_by_its_name(hub, finish, publish, make_recipe, tiny_flux, tmp_path):
    finish(make_recipe())
    publish(make_recipe())
    pipeline = FluxPipeline.from_pretrained(tiny_flux)
    pipeline.load_lora_weights(REPO, weight_name=f"{NAME}.safetensors", cache_dir=tmp_path / "cache")
    assert pipeline.get_active_adapters()


def test_the_published_recipe_names_no_folder_of_this_machine(hub, finish, publish, make_recipe, tmp_path):
    made = make_recipe(model={"base": str(tmp_path / "my-flux")}, generate={"prompts": ["/imagine a fox"]},
                       caption={"captioner": "~/captioners/mine"})  # fmt: skip
    finish(made)
    publish(made)
    for text in ("README.md", "recipe.yaml"):
        assert str(tmp_path) not in (hub.repo(REPO).files / text).read_text()
    recipe = (hub.repo(REPO).files / "recipe.yaml").read_text()
    assert "base: my-flux" in recipe
    assert "captioner: mine" in recipe
    assert "- /imagine a fox" in recipe


def test_publishing_again_sends_only_what_changed(hub, finish, publish, make_recipe):
    folder = finish(make_recipe())
    publish(make_recipe())
    hub.requests.clear()
    (folder / "README.md").write_text((folder / "README.md").read_text() + "\nMore words.\n")
    publish(make_recipe())
    assert not any(request.startswith("PUT") for request in hub.requests)
    assert "More words." in (hub.repo(REPO).files / "README.md").read_text()


def test_the_token_is_nowhere_but_in_the_requests(hub, finish, publish, make_recipe, workspace, caplog):
    caplog.set_level(logging.DEBUG)
    finish(make_recipe())
    publish(make_recipe())
    kept = [path for path in workspace.home.rglob("*") if path.is_file() and WRITE_TOKEN.encode() in path.read_bytes()]
    assert not kept
    assert WRITE_TOKEN not in caplog.text


def test_a_text_with_a_token_in_it_is_not_sent(hub, finish, publish, make_recipe):
    folder = finish(make_recipe())
    with (folder / "README.md").open("a") as readme:
        readme.write(f"\nmy token is {READ_TOKEN}\n")
    with pytest.raises(PublishError, match="looks like a Hugging Face token") as caught:
        publish(make_recipe())
    assert READ_TOKEN not in str(caught.value)
    assert not hub.requests


def test_without_a_token_the_error_says_how_to_log_in(hub, finish, publish, make_recipe, monkeypatch, tmp_path):
    finish(make_recipe())
    monkeypatch.delenv("HF_TOKEN")
    monkeypatch.setattr(huggingface_hub.constants, "HF_TOKEN_PATH", str(tmp_path / "no-token"))
    with pytest.raises(PublishError) as caught:
        publish(make_recipe())
    assert "hf auth login" in caught.value.hint
    assert not hub.requests


@pytest.mark.parametrize(
    ("token", "repo", "says"),
    [
        ("hf_" + "x" * 34, REPO, "does not accept the token"),
        (READ_TOKEN, REPO, "the token of tester may not write"),
        (WRITE_TOKEN, f"somebody-else/{NAME}", "the token of tester may not write"),
    ],
    ids=["unknown", "read only", "foreign"],
)
def test_a_token_that_may_not_is_explained(hub, finish, publish, make_recipe, monkeypatch, token, repo, says):
    monkeypatch.setenv("HF_TOKEN", token)
    made = make_recipe(publish={"repo": repo})
    finish(made)
    with pytest.raises(PublishError, match=says) as caught:
        publish(made)
    assert caught.value.hint
    assert token not in str(caught.value)


def test_a_repository_of_another_visibility_is_left_alone(hub, finish, publish, make_recipe):
    finish(make_recipe())
    hub.repo(REPO).save(private=False, sha="0" * 40)
    with pytest.raises(PublishError, match="is public, the recipe says private") as caught:
        publish(make_recipe())
    assert "publish.private=false" in caught.value.hint
    assert not stored(hub)


def test_a_short_cut_in_the_network_is_bridged(hub, finish, publish, make_recipe, impatient):
    folder = finish(make_recipe())
    hub.cut_uploads = 2
    publish(make_recipe())
    assert (hub.repo(REPO).files / f"{NAME}.safetensors").read_bytes() == (folder / f"{NAME}.safetensors").read_bytes()


def test_a_long_cut_publishes_nothing_and_running_again_completes(hub, finish, publish, make_recipe, impatient):
    finish(make_recipe())
    hub.cut_uploads = 1000
    with pytest.raises(JobError, match="cannot be reached") as caught:
        publish(make_recipe())
    assert "again" in caught.value.hint
    assert not stored(hub)
    hub.cut_uploads = 0
    assert publish(make_recipe()).report["private"] is True
    assert f"{NAME}.safetensors" in stored(hub)


def test_a_hub_that_is_not_there_is_named(finish, publish, make_recipe, hub, monkeypatch):
    finish(make_recipe())
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        monkeypatch.setattr(huggingface_hub.constants, "ENDPOINT", f"http://127.0.0.1:{free.getsockname()[1]}")
        with pytest.raises(JobError, match=r"cannot log in: the Hub cannot be reached \(ConnectError\)"):
            publish(make_recipe())


def test_offline_mode_is_named(finish, publish, make_recipe, hub, monkeypatch):
    finish(make_recipe())
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    with pytest.raises(PublishError, match="HF_HUB_OFFLINE is set"):
        publish(make_recipe())


def test_what_did_not_arrive_whole_is_an_error(hub, finish, publish, make_recipe):
    finish(make_recipe())
    hub.lie_about_sizes = True
    with pytest.raises(JobError, match=f"{NAME}.safetensors did not arrive whole"):
        publish(make_recipe())


def test_a_card_that_the_hub_refuses_is_explained(hub, finish, publish, make_recipe):
    folder = finish(make_recipe())
    (folder / "README.md").write_text("---\nlicense: my-own\n---\n")
    with pytest.raises(PublishError, match=r"README.md.*my-own"):
        publish(make_recipe())
    assert not stored(hub)


def test_a_lora_that_is_not_finished_is_not_published(hub, publish, make_recipe):
    with pytest.raises(PublishError, match=rf"{NAME}.safetensors is not there"):
        publish(make_recipe())


def test_a_recipe_without_a_repository_is_not_published(finish, publish, make_recipe):
    made = make_recipe(publish={})
    finish(made)
    with pytest.raises(PublishError, match="no repository"):
        publish(made)


def test_a_stop_before_the_upload_sends_nothing(hub, finish, publish, make_recipe):
    finish(make_recipe())
    with pytest.raises(Stopped):
        publish(make_recipe(), lambda reporter: reporter.run.request("STOP"))
    assert not stored(hub)


def test_the_server_prints_what_its_clients_need(tmp_path):
    import subprocess
    import sys
    from urllib.request import urlopen

    from tests.publish import hub_server

    command = [sys.executable, hub_server.__file__, "--folder", str(tmp_path)]
    server = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    try:
        settings = dict(part.split("=", 1) for part in server.stdout.readline().split())
        assert settings["HF_TOKEN"] == WRITE_TOKEN
        with pytest.raises(OSError, match="401"):
            urlopen(f"{settings['HF_ENDPOINT']}/api/whoami-v2")
    finally:
        server.terminate()
        server.wait()
        server.stdout.close()
