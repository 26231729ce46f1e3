import pytest

from lora_lightning.errors import InputError, NameProblem
from lora_lightning.runs import trash
from lora_lightning.runs.folder import RunFolder, runs
from lora_lightning.runs.job import reserve


@pytest.fixture
def run(workspace):
    made = reserve(workspace, "train", "v1.2", "name: v1.2\n")
    made.write_state(state="stopped", launched=0.0)
    return made


def test_deleted_runs_lie_in_the_trash_and_come_back_whole(workspace, run):
    before = {path.name: path.read_bytes() for path in run.path.iterdir()}
    deleted = trash.delete(workspace, run)
    assert (deleted.path / "recipe.yaml").is_file()
    assert runs(workspace) == []
    with pytest.raises(NameProblem, match="there is no run"):
        RunFolder.open(workspace, "v1.2")
    (listed,) = trash.listed(workspace)
    assert (listed.name, listed.path) == ("v1.2", deleted.path)
    restored = trash.restore(workspace, listed)
    assert {path.name: path.read_bytes() for path in restored.path.iterdir()} == before
    assert trash.listed(workspace) == []


def test_nothing_is_overwritten_by_deleting_or_restoring(workspace, run):
    first = trash.delete(workspace, run)
    again = reserve(workspace, "train", "v1.2", "name: v1.2\nseed: 1\n")
    again.write_state(state="stopped", launched=0.0)
    with pytest.raises(NameProblem, match=r"v1\.2"):
        trash.restore(workspace, first)
    second = trash.delete(workspace, again)
    assert second.path != first.path
    assert len(trash.listed(workspace)) == 2
    trash.restore(workspace, first)
    with pytest.raises(NameProblem):
        trash.restore(workspace, second)


def test_a_working_run_is_not_deleted(workspace, run):
    assert run.lock.acquire()
    with pytest.raises(InputError, match="is working"):
        trash.delete(workspace, run)
    run.lock.release()


def test_only_what_is_in_the_trash_is_restored_or_destroyed(workspace, run):
    stranger = trash.Deleted("x", workspace.home, 0.0)
    with pytest.raises(InputError, match="not in the trash"):
        trash.restore(workspace, stranger)
    trash.delete(workspace, run)
    (workspace.home / "trash" / "a note").mkdir()
    assert trash.empty(workspace) == 1
    assert [path.name for path in (workspace.home / "trash").iterdir()] == ["a note"]
