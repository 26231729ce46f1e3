import pytest
from hypothesis import given
from hypothesis import strategies as st

from lora_lightning.errors import NameProblem
from lora_lightning.workspace import Workspace, check_name

TRAVERSALS = ["..", ".", "../x", "a/b", "/etc", "a\\b", "C:x", "", " ", "a b", "a\n", "-rf", ".hidden", "x" * 65, "con",
              "NUL.txt", "com1", "a.", "~", "a\0b", "é", "a/../b"]  # fmt: skip


@pytest.mark.parametrize("name", TRAVERSALS)
def test_names_that_are_no_safe_folder_are_refused(name):
    with pytest.raises(NameProblem) as caught:
        check_name(name)
    assert repr(name) in caught.value.message
    assert "letters" in caught.value.hint


@given(st.text())
def test_a_name_is_refused_or_stays_inside_the_workspace(name):
    workspace = Workspace.find("somewhere")
    try:
        path = workspace.run(name)
    except NameProblem:
        return
    assert path.resolve().parent == workspace.runs


def test_home_comes_from_the_option_then_the_environment_then_here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("LORA_LIGHTNING_HOME", raising=False)
    assert Workspace.find().home == tmp_path / "workspace"
    monkeypatch.setenv("LORA_LIGHTNING_HOME", str(tmp_path / "a"))
    assert Workspace.find().home == tmp_path / "a"
    assert Workspace.find(tmp_path / "b").home == tmp_path / "b"
