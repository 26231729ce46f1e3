"""Words and phrases: where a caption has them, and how often a dataset has which.

A word is a run of letters, digits and underscores, with inner hyphens and apostrophes: `red-haired`, `dog's`.
Shapes: W words of all captions in a row, P phrases.
"""

import re
from array import array
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

LONGEST_PHRASE = 3
STOP_WORDS = frozenset(
    """a about above after again all also although am an and another any are around as at away back be because been
    before behind being below beneath beside between both but by can could did do does doing down during each either
    for from further had has have having he her here hers him his how i if in into is it its itself just like may
    might more most much near no nor not of off on once one only onto or other our out over own same several she
    should so some such than that the their them then there these they this those through to together too toward
    towards under until up upon very was we were what when where which while who whom whose why will with within
    without would you your""".split()  # noqa: SIM905 - a list would fill a page
)
_WORD = re.compile(r"\w+(?:['\u2019-]\w+)*")


@dataclass(frozen=True)
class Phrase:
    """One to three words in a row; `captions` is how many captions have it, `uses` how often it comes up."""

    text: str
    captions: int
    uses: int


@dataclass(frozen=True)
class _Rows:
    """All words in a row: their numbers in `vocabulary`, their captions, and their runs without punctuation."""

    vocabulary: list[str]
    word_W: npt.NDArray[np.int64]
    caption_W: npt.NDArray[np.int64]
    run_W: npt.NDArray[np.int64]


def finder(phrase: str) -> Callable[[str], bool]:
    """Whether a caption in small letters has a phrase as whole words: `red` is not in `bored` nor in `red-haired`."""
    words = [re.escape(word) for word in phrase.lower().split()]
    if not words:
        return lambda lowered: True
    first, *others = words
    # What stands before the first word is looked at behind it, because `re` is fast on patterns that begin plainly.
    start = rf"{first}(?<!\w{first})(?<!\w['\u2019-]{first})"
    pattern = re.compile(r"\s+".join([start, *others]) + r"(?!\w|['\u2019-]\w)")
    return lambda lowered: pattern.search(lowered) is not None


def frequency(captions: Sequence[str], *, fewest: int = 2, most: int = 200) -> list[Phrase]:
    """Words and phrases of up to three words, the most widespread first.

    A phrase neither begins nor ends with a stop word (`piece of cake` counts, `of cake` does not) and does not reach
    across punctuation. `finder(text)` is true for exactly `captions` captions in small letters.

    Args:
        captions: of the dataset.
        fewest: leave out what fewer captions have.
        most: how many phrases to return of each length.
    """
    found = [phrase for phrases in _counted(_rows(captions), fewest, most) for phrase in phrases]
    return sorted(found, key=lambda phrase: (-phrase.captions, -phrase.uses, phrase.text))


def _rows(captions: Sequence[str]) -> _Rows:
    ids: dict[str, int] = {}
    words, numbers, runs = array("q"), array("q"), array("q")
    run = 0
    for number, caption in enumerate(captions):
        text, end = caption.lower(), -1
        for match in _WORD.finditer(text):
            run += end < 0 or not text[end : match.start()].isspace()
            words.append(ids.setdefault(match.group(), len(ids)))
            numbers.append(number)
            runs.append(run)
            end = match.end()
    return _Rows(list(ids), *(np.array(column, np.int64) for column in (words, numbers, runs)))


def _counted(rows: _Rows, fewest: int, most: int) -> Iterator[list[Phrase]]:
    """The commonest phrases of one, two and three words; a phrase's code is its words' numbers as digits."""
    bounds_W = np.array([word not in STOP_WORDS for word in rows.vocabulary], bool)[rows.word_W]
    code_W = np.zeros_like(rows.word_W)
    for length in range(1, min(LONGEST_PHRASE, len(rows.word_W)) + 1):
        starts, last = len(rows.word_W) - length + 1, length - 1
        code_W = code_W[:starts] * len(rows.vocabulary) + rows.word_W[last:]
        whole_W = bounds_W[:starts] & bounds_W[last:] & (rows.run_W[:starts] == rows.run_W[last:])
        code_P, phrase_W, uses_P = np.unique(code_W[whole_W], return_inverse=True, return_counts=True)
        pairs = np.unique(phrase_W * (rows.caption_W[-1] + 1) + rows.caption_W[:starts][whole_W])
        captions_P = np.bincount(pairs // (rows.caption_W[-1] + 1), minlength=len(code_P))
        tops = np.lexsort((code_P, -uses_P, -captions_P))[:most]
        yield [
            Phrase(_spell(int(code_P[p]), rows.vocabulary, length), int(captions_P[p]), int(uses_P[p]))
            for p in tops
            if captions_P[p] >= fewest
        ]


def _spell(code: int, vocabulary: Sequence[str], length: int) -> str:
    words = []
    for _ in range(length):
        code, digit = divmod(code, len(vocabulary))
        words.append(vocabulary[digit])
    return " ".join(reversed(words))
