"""Editing many captions: say what to do, look at what it would do, then do it as one step that can be undone.

    edit = editing.replace("colour", "color", whole_words=True)
    changes = editing.preview(dataset.pictures(), edit)
    done = editing.apply(dataset, edit, changes)
    ledger.undo(dataset, done.id)

Pictures without a caption are left alone: an edit changes captions, it does not make them.
"""

import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

import regex  # type: ignore[import-untyped]  # `re` with a time limit: (a+)+$ must not freeze the dashboard

from lora_lightning.datasets.captions import MAX_CAPTION_CHARACTERS
from lora_lightning.datasets.kinds import CAPTION
from lora_lightning.datasets.ledger import BulkResult, Rewrite, rewrite
from lora_lightning.datasets.names import one_line
from lora_lightning.datasets.store import Dataset, Picture
from lora_lightning.errors import InputError

CAPTION_SECONDS = 1.0
ALL_SECONDS = 10.0
_SENTENCES = regex.compile(
    r"(?<=[.!?…]['\"”\u2019)\]]*)(?<!\b(?:Mr|Mrs|Ms|Dr|St|Jr|Sr|vs|No|e\.g|i\.e|\p{Lu})\.)"
    r"\s+(?=['\"“\u2018(\[]*[\p{Lu}\p{N}])"
)


@dataclass(frozen=True)
class Edit:
    """What happens to each caption; `title` says it in the list of edits."""

    title: str
    change: Callable[[str], str]


@dataclass(frozen=True)
class Change:
    """A caption before and after an edit that is not stored yet; `version` is the one that was read."""

    picture: int
    name: str
    version: int
    before: str
    after: str


def preview(pictures: Iterable[Picture], edit: Edit) -> list[Change]:
    """The captions that an edit would change; which pictures are given is the scope of the edit.

    Raises:
        InputError: it takes too long, or a caption would grow beyond the limit.
    """
    deadline = time.monotonic() + ALL_SECONDS
    changes = []
    for picture in pictures:
        if not picture.caption:
            continue
        if time.monotonic() > deadline:
            raise _too_slow()
        after = one_line(edit.change(picture.caption))
        if len(after) > MAX_CAPTION_CHARACTERS:
            raise InputError(
                f"the caption of {picture.name} would be longer than {MAX_CAPTION_CHARACTERS:,} characters",
                "Use a shorter replacement, or a pattern that matches less often.",
            )
        if after != picture.caption:
            changes.append(Change(picture.id, picture.name, picture.version, picture.caption, after))
    return changes


def apply(dataset: Dataset, edit: Edit, changes: Sequence[Change], kind: str = CAPTION) -> BulkResult:
    """Store previewed changes in one transaction; a caption that changed since the preview is a conflict.

    Args:
        dataset: to change.
        edit: that was previewed.
        changes: from `preview` of pictures that came with captions of this kind.
        kind: of caption.
    """
    return rewrite(dataset, edit.title, [Rewrite(each.picture, each.version, each.after) for each in changes], kind)


def replace(
    find: str, replacement: str, *, is_regex: bool = False, match_case: bool = True, whole_words: bool = False
) -> Edit:
    r"""Find and replace.

    Args:
        find: a text, or a regular expression.
        replacement: what takes its place; for a regular expression `\1` and `\g<name>` stand for its groups.
        is_regex: whether `find` is a regular expression.
        match_case: whether `Cat` differs from `cat`.
        whole_words: leave `concatenate` alone when looking for `cat`.

    Raises:
        InputError: nothing to look for, or a mistake in the expression or the replacement, with its position.
    """
    if not find:
        raise InputError("there is nothing to look for", "Type the text to find.")
    source = find if is_regex else regex.escape(find, literal_spaces=True)
    template = replacement if is_regex else replacement.replace("\\", r"\\")
    pattern = _compile(source, match_case, find)
    _substitute(_compile(f"{source}|", match_case, find), template, "")  # the empty match tries the replacement out
    if whole_words:
        pattern = _compile(rf"(?<!\w)(?:{source})(?!\w)", match_case, find)
    return Edit(f"Replace {find!r} by {replacement!r}", lambda text: _substitute(pattern, template, text))


def prefix(text: str) -> Edit:
    """Put a text before each caption that does not begin with it."""
    glued = text if text[-1:].isspace() or text.endswith(("(", "[", '"', "“")) else f"{text} "
    return Edit(f"Put {text!r} first", lambda caption: caption if caption.startswith(text) else glued + caption)


def suffix(text: str) -> Edit:
    """Put a text behind each caption that does not end with it; before a comma or a stop there is no space."""
    glued = text if text[:1].isspace() or text.startswith((",", ".", ";", ":", "!", "?", ")", "]")) else f" {text}"
    return Edit(f"Put {text!r} last", lambda caption: caption if caption.endswith(text) else caption + glued)


def insert_trigger(trigger: str) -> Edit:
    """Put the trigger word first in each caption that lacks it as a whole word.

    Where it is there, but spelt `mystyle` for `MYSTYLE`, its spelling is corrected (T5 tells them apart); where it
    stands twice at the start, one of them goes.

    Raises:
        InputError: the trigger is empty.
    """
    if not trigger.strip():
        raise InputError("there is no trigger word", "Type the trigger word of the LoRA.")
    word = rf"(?<!\w){regex.escape(trigger)}(?!\w)"
    anywhere, doubled = regex.compile(word, regex.IGNORECASE), regex.compile(rf"^(?:{word}[,\s]+)+(?={word})")

    def change(caption: str) -> str:
        found, count = anywhere.subn(lambda _: trigger, caption)
        return doubled.sub("", found) if count else f"{trigger}, {caption}"

    return Edit(f"Insert trigger {trigger!r}", change)


def remove_sentences(containing: str) -> Edit:
    """Take out every sentence that contains a text, in any case; a caption of which nothing would stay stays whole.

    Source of the need: captioners claim watermarks that are not there (fpgaminer/joycaption issues 43 and 60).

    Raises:
        InputError: nothing to look for.
    """
    wanted = containing.strip().casefold()
    if not wanted:
        raise InputError("there is nothing to look for", "Type a word of the sentences to remove.")

    def change(caption: str) -> str:
        kept = [sentence for sentence in sentences(caption) if wanted not in sentence.casefold()]
        return " ".join(kept) or caption

    return Edit(f"Remove sentences with {containing!r}", change)


def sentences(caption: str) -> list[str]:
    """The sentences of a caption; `3.5 mm`, `Mr. Smith` and `J. Doe` are no ends."""
    return [str(sentence) for sentence in _SENTENCES.split(caption)]


def _compile(source: str, match_case: bool, shown: str) -> "regex.Pattern[str]":
    try:
        return regex.compile(source, 0 if match_case else regex.IGNORECASE)
    except regex.error as error:
        raise _mistake(f"the regular expression {shown!r}", error) from None


def _substitute(pattern: "regex.Pattern[str]", template: str, text: str) -> str:
    try:
        return str(pattern.sub(template, text, timeout=CAPTION_SECONDS, concurrent=True))
    except (regex.error, IndexError) as error:  # IndexError: a group name that the expression does not have
        raise _mistake(f"the replacement {template!r}", error) from None
    except TimeoutError:
        raise _too_slow() from None


def _mistake(where: str, error: Exception) -> InputError:
    position = getattr(error, "pos", None)
    at = "" if position is None else f" at position {position + 1}"
    reason = getattr(error, "msg", str(error))
    return InputError(
        f"{where} has a mistake{at}: {reason}", "Correct it there; put a backslash before a sign that is meant as such."
    )


def _too_slow() -> InputError:
    return InputError("the search takes too long", "Make the expression simpler: avoid a repeat inside a repeat.")
