"""Captions out of JSON, JSON lines and CSV, in the shapes that trainers and captioners write.

    {"captions": {"0001.png": "a dog"}}                       the seed; also without the outer key
    {"0001.png": {"caption": "a dog", "tags": "dog, beach"}}  sd-scripts; ai-toolkit has `caption_short`
    {"0001.png": ["a dog", "a brown dog on a beach"]}         diffusion-pipe: several captions a picture
    {"file_name": "0001.png", "text": "a dog"}                a line of metadata.jsonl, or a row of metadata.csv

Sources: sd-scripts 48d368f, finetune/merge_captions_to_metadata.py; ai-toolkit 27a03a9, toolkit/dataloader_mixins.py;
diffusion-pipe 8f83dbf, utils/dataset.py; musubi-tuner 30c658c, dataset/image_video_dataset.py (`image_path`); datasets,
packaged_modules/folder_based_builder (`file_name`).
"""

import csv
import io
import json
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping

from lora_lightning.datasets.captions import MAX_LABEL_CHARACTERS, Claim, decode_text, label, listed
from lora_lightning.datasets.entries import Unusable
from lora_lightning.datasets.names import clean

Reject = Callable[[str, str], None]

FILE_FIELDS = ("file_name", "image_path", "image", "file", "filename", "path", "media_path")
TEXT_FIELDS = ("text", "caption", "prompt", "caption_long", "description")
SHORT_FIELDS = ("caption_short", "text_short", "short_caption", "short")
TAG_FIELDS = ("tags",)


def read_json(file: str, data: bytes, reject: Reject) -> list[Claim]:
    """The captions of a JSON file; single ones that are no text go to `reject(label, reason)`.

    Raises:
        Unusable: no JSON, a name twice, or no captions in it.
    """
    value = _parsed(data)
    captions = value.get("captions", value) if isinstance(value, dict) else value
    if isinstance(captions, list):
        return read_rows(file, captions, reject)
    found = {name: _texts(each) for name, each in captions.items()} if isinstance(captions, dict) else {}
    if not any(found.values()):
        raise Unusable('no captions in it; expected {"captions": {"0001.png": "..."}}')
    return list(_claims(file, found.items(), reject))


def read_lines(file: str, data: bytes, reject: Reject) -> list[Claim]:
    """The captions of a file with one JSON object a line, such as metadata.jsonl.

    Raises:
        Unusable: a line is no JSON, or no line names a picture and a caption.
    """
    rows = []
    for number, line in enumerate(decode_text(data).split("\n"), start=1):
        if line.strip():
            try:
                rows.append(_parsed(line.encode()))
            except Unusable as reason:
                raise Unusable(f"line {number} is {reason}") from None
    return read_rows(file, rows, reject)


def read_table(file: str, data: bytes, reject: Reject) -> list[Claim]:
    """The captions of a CSV file whose first line names its columns, such as metadata.csv.

    Raises:
        Unusable: no table, or no column for the picture or its caption.
    """
    try:
        rows = list(csv.DictReader(io.StringIO(decode_text(data), newline="")))
    except csv.Error as error:
        raise Unusable(f"not valid CSV ({clean(str(error))})") from None
    return read_rows(file, rows, reject)


def read_rows(file: str, rows: Iterable[object], reject: Reject) -> list[Claim]:
    """The captions of objects that each name a picture.

    Raises:
        Unusable: not one of them names a picture and a caption.
    """
    named = []
    for row in rows:
        if isinstance(row, dict) and isinstance(name := _first(row, FILE_FIELDS), str) and name:
            texts = _texts(row)
            if texts or not isinstance(_first(row, TEXT_FIELDS), str):  # exports say "" where there is no caption
                named.append((name, texts))
    if not any(texts for _, texts in named):
        raise Unusable('no captions in it; expected lines such as {"file_name": "0001.png", "text": "..."}')
    return list(_claims(file, named, reject))


def _claims(file: str, named: Iterable[tuple[str, Mapping[str, str]]], reject: Reject) -> Iterator[Claim]:
    for name, texts in named:
        if not texts:
            reject(label(file, name), "the caption is not a text")
        for kind, text in texts.items():
            yield listed(file, name, text, kind)


def _texts(value: object) -> dict[str, str]:
    """Captions by kind: "" is the caption itself, then `short`, `tags`, and `second`, `third`, ... of a list."""
    if isinstance(value, str):
        return {"": value}
    if isinstance(value, list):
        texts = [text for text in value if isinstance(text, str)]
        return {f"caption-{number}" if number > 1 else "": text for number, text in enumerate(texts, start=1)}
    if not isinstance(value, dict):
        return {}
    found = {kind: text for kind, text in _texts(_first(value, TEXT_FIELDS)).items() if text.strip()}
    for kind, fields in (("short", SHORT_FIELDS), ("tags", TAG_FIELDS)):
        other = _first(value, fields)
        text = ", ".join(map(str, other)) if isinstance(other, list) else other
        if isinstance(text, str) and text.strip():
            found["" if not found else kind] = text  # the only text there is, is the caption
    return found


def _first(row: Mapping[str, object], fields: Iterable[str]) -> object:
    return next((row[field] for field in fields if row.get(field) is not None), None)


def _parsed(data: bytes) -> object:
    try:
        return json.loads(data, object_pairs_hook=_without_doubles)
    except (ValueError, RecursionError) as error:
        raise Unusable(f"not valid JSON ({clean(str(error))[:MAX_LABEL_CHARACTERS]})") from None


def _without_doubles(pairs: list[tuple[str, object]]) -> dict[str, object]:
    found = dict(pairs)
    if len(found) < len(pairs):
        double = Counter(name for name, _ in pairs).most_common(1)[0][0]
        raise ValueError(f"{double!r} appears twice")
    return found
