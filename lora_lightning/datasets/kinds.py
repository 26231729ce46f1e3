"""The kinds of caption that a picture may have: the one that every trainer gets, a short one, its tags, any other.

Each kind has versions of its own. The first lies in the table `captions`, all others in `alternates`.
"""

import re

from lora_lightning.errors import InputError

CAPTION, SHORT, TAGS = "caption", "short", "tags"
USUAL = (SHORT, TAGS)
"""Those beside the caption that trainers know."""
_KIND = re.compile(r"[a-z][a-z0-9-]{0,30}")
_COLUMNS = "picture, version, text, author, details, written"


def table(kind: str) -> str:
    """The versions of a kind, as SQL to stand where a table does.

    Raises:
        InputError: the kind cannot be a name.
    """
    return "captions" if kind == CAPTION else f"(SELECT {_COLUMNS} FROM alternates WHERE kind = '{_checked(kind)}')"


def insertion(kind: str) -> str:
    """SQL that adds a version: picture, version, text, author, details and when it was written.

    Raises:
        InputError: the kind cannot be a name.
    """
    if kind == CAPTION:
        return f"INSERT INTO captions ({_COLUMNS}) VALUES (?, ?, ?, ?, ?, ?)"
    return f"INSERT INTO alternates (kind, {_COLUMNS}) VALUES ('{_checked(kind)}', ?, ?, ?, ?, ?, ?)"


def _checked(kind: str) -> str:
    if not _KIND.fullmatch(kind):
        raise InputError(f"{kind!r} cannot name a kind of caption", "Use small letters and digits, such as 'short'.")
    return kind
