"""How many tokens of a caption the text encoders of a base model read, and what they cut off.

CLIP-L reads 77 tokens (start and end mark included) and gives FLUX one pooled vector: subject and trigger belong
there. T5 reads 512, or 256 in schnell, and everything behind that is lost. The model's own tokenizer files are read
with the `tokenizers` package alone; where they are absent, 1.35 tokens a word is the estimate, and is called one.
"""

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

from huggingface_hub import try_to_load_from_cache
from tokenizers import Regex, Tokenizer, normalizers, pre_tokenizers, processors
from tokenizers.models import BPE

from lora_lightning.runs.files import read_json

CLIP_LIMIT = 77
T5_LIMIT = 512
T5_LIMIT_SCHNELL = 256
TOKENS_PER_WORD = 1.35  # measured with CLIP's tokenizer on JoyCaption's captions: 1.25 to 1.5
_CLIP_START, _CLIP_END = "<|startoftext|>", "<|endoftext|>"
_CLIP_PIECES = r"<\|startoftext\|>|<\|endoftext\|>|'s|'t|'re|'ve|'m|'ll|'d|[\p{L}]+|[\p{N}]|[^\s\p{L}\p{N}]+"


@dataclass(frozen=True)
class Reading:
    """What an encoder makes of a caption.

    Attributes:
        tokens: of the whole caption, marks included.
        limit: the most that is read.
        seen: the part that is read; `cut` is the rest.
        estimated: whether the tokenizer was absent, so that all of this is a guess.
    """

    tokens: int
    limit: int
    seen: str
    cut: str
    estimated: bool


class Meter:
    """Counts the tokens of one encoder; counts are remembered, since a page asks for the same ones at each click.

    Args:
        name: "CLIP" or "T5".
        limit: the most tokens that are read.
        marks: tokens that the encoder adds by itself.
        tokenizer: None for an estimate.
    """

    def __init__(self, name: str, limit: int, marks: int, tokenizer: Tokenizer | None) -> None:
        self.name, self.limit = name, limit
        self.estimated = tokenizer is None
        self._marks, self._tokenizer = marks, tokenizer
        self._known: dict[int, int] = {}  # by the hash of the text: 10,000 captions take 1 MB

    def counts(self, texts: Sequence[str]) -> list[int]:
        """Tokens of each text, marks included."""
        unknown = list({text for text in texts if hash(text) not in self._known})
        if self._tokenizer is None:
            found = [math.ceil(len(text.split()) * TOKENS_PER_WORD) + self._marks for text in unknown]
        else:
            found = [len(encoding.ids) for encoding in self._tokenizer.encode_batch_fast(unknown)]
        self._known |= zip(map(hash, unknown), found, strict=True)
        return [self._known[hash(text)] for text in texts]

    def read(self, text: str) -> Reading:
        """One text with its cut."""
        tokens = self.counts([text])[0]
        end = len(text) if tokens <= self.limit else self._end(text)
        return Reading(tokens, self.limit, text[:end], text[end:], self.estimated)

    def _end(self, text: str) -> int:
        """How many characters the limit lets through."""
        room = self.limit - self._marks
        if self._tokenizer is None:
            words = list(re.finditer(r"\S+", text))
            return words[int(room / TOKENS_PER_WORD) - 1].end()
        offsets = self._tokenizer.encode(text, add_special_tokens=False).offsets
        # A token for the space before a word has the offsets of the word's first letter.
        return int(min(offsets[room - 1][1], offsets[room][0]))


@dataclass(frozen=True)
class Meters:
    """The two meters of a FLUX.1 model."""

    clip: Meter
    t5: Meter

    @property
    def both(self) -> tuple[Meter, Meter]:
        """CLIP's first."""
        return self.clip, self.t5


def meters(base: str) -> Meters:
    """The meters of a base model, without any network.

    Args:
        base: a folder in the diffusers layout or a Hub id; only the Hub's local cache is looked into.
    """
    clip_limit = _limit(base, "tokenizer", CLIP_LIMIT)
    t5_limit = _limit(base, "tokenizer_2", T5_LIMIT if _guided(base) else T5_LIMIT_SCHNELL)
    clip = (_find(base, f"tokenizer/{name}") for name in ("tokenizer.json", "vocab.json", "merges.txt"))
    return Meters(_clip_meter(clip_limit, *clip), _t5_meter(t5_limit, _find(base, "tokenizer_2/tokenizer.json")))


@lru_cache(maxsize=8)
def _clip_meter(limit: int, file: Path | None, vocabulary: Path | None, merges: Path | None) -> Meter:
    old = _old_clip(vocabulary, merges) if vocabulary and merges else None
    return Meter("CLIP", limit, 2, _open(file) if file else old)


@lru_cache(maxsize=8)
def _t5_meter(limit: int, file: Path | None) -> Meter:
    return Meter("T5", limit, 1, _open(file) if file else None)


def _find(base: str, name: str) -> Path | None:
    """A file of the base model on this machine."""
    folder = Path(base)
    if folder.is_dir():
        return folder / name if (folder / name).is_file() else None
    try:
        cached = try_to_load_from_cache(base, name)
    except ValueError:  # neither a folder nor a Hub id
        return None
    return Path(cached) if isinstance(cached, str) else None


def _json(base: str, name: str) -> dict[str, object]:
    path = _find(base, name)
    return read_json(path) if path else {}


def _guided(base: str) -> bool:
    """Whether it is like dev; schnell has no guidance embedding. Where nothing is there, the name tells."""
    config = _json(base, "transformer/config.json")
    return bool(config.get("guidance_embeds")) if config else "schnell" not in base.lower()


def _limit(base: str, part: str, usual: int) -> int:
    """The usual limit, or the model's own if that is less; files that know none say 10^30."""
    own = _json(base, f"{part}/tokenizer_config.json").get("model_max_length")
    return min(usual, int(own)) if isinstance(own, int | float) else usual


def _open(file: Path) -> Tokenizer | None:
    """A tokenizer without the lengths that were saved with it; None where the file is damaged."""
    try:
        tokenizer = Tokenizer.from_file(str(file))
    except Exception:  # tokenizers raises nothing more precise; loading the model will name the file
        return None
    tokenizer.no_truncation()
    tokenizer.no_padding()
    return tokenizer


def _old_clip(vocabulary: Path, merges: Path) -> Tokenizer | None:
    """CLIP's tokenizer from vocab.json and merges.txt, which is all that the published FLUX.1 folders hold.

    Source: the same pieces as in transformers 5.23, models/clip/tokenization_clip.py.
    """
    try:
        model = BPE.from_file(str(vocabulary), str(merges), end_of_word_suffix="</w>", unk_token=_CLIP_END)
    except Exception:  # as above
        return None
    tokenizer = Tokenizer(model)
    start, end = tokenizer.token_to_id(_CLIP_START), tokenizer.token_to_id(_CLIP_END)
    if start is None or end is None:
        return None
    tokenizer.normalizer = normalizers.Sequence(
        [normalizers.NFC(), normalizers.Replace(Regex(r"\s+"), " "), normalizers.Lowercase()]
    )
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(_CLIP_PIECES), behavior="removed", invert=True),
            pre_tokenizers.ByteLevel(add_prefix_space=False),
        ]
    )
    tokenizer.post_processor = processors.RobertaProcessing((_CLIP_END, end), (_CLIP_START, start))
    return tokenizer
