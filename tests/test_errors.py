import errno
import inspect

import pytest

from lora_lightning import errors
from lora_lightning.errors import DiskFull, JobError, LoraLightningError, OutOfMemory, RecipeError, Stopped, translate


def test_the_tree_in_the_docstring_is_the_tree():
    classes = [value for value in vars(errors).values() if inspect.isclass(value) and issubclass(value, Exception)]
    for kind in classes:
        assert f"{kind.__name__} " in errors.__doc__, kind.__name__


def test_exit_codes_follow_the_tree():
    assert RecipeError([]).exit_code == 2
    assert JobError("x").exit_code == 1
    assert Stopped("x").exit_code == 143


@pytest.mark.parametrize(
    ("error", "kind"),
    [
        (OSError(errno.ENOSPC, "No space left on device", "a/file"), DiskFull),
        (OSError(errno.EDQUOT, "Disk quota exceeded", "a/file"), DiskFull),
        (MemoryError(), OutOfMemory),
        (KeyboardInterrupt(), Stopped),
        (ValueError("x"), JobError),
        (PermissionError(13, "denied", "a/file"), JobError),
    ],
)
def test_foreign_errors_become_ours_with_a_hint_or_a_name(error, kind):
    ours = translate(error)
    assert type(ours) is kind
    assert isinstance(ours, LoraLightningError)
    assert ours.message
