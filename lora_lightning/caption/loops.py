"""Captioners sometimes repeat themselves without end (JoyCaption's README: 1.5 to 3 of 100 captions)."""

from collections.abc import Sequence

LONGEST_PERIOD = 64
REPEATS = 3
LEAST_TOKENS = 24


def runs_in_circles(ids: Sequence[int]) -> bool:
    """Whether the end of a text is the same passage over and over: three times, and 24 tokens, at least.

    Args:
        ids: the tokens so far.
    """
    for period in range(1, LONGEST_PERIOD + 1):
        span = max(REPEATS * period, LEAST_TOKENS)
        if len(ids) < span:
            return False
        tail = ids[-span:]
        if tail[period:] == tail[:-period]:
            return True
    return False
