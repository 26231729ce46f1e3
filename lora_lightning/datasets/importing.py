"""Pictures and captions into a dataset: all or nothing, and every file accounted for.

    open the sources -> copy and decode each picture -> match captions by name -> one commit

Limits, each named in the error or report row that it causes: 20,000 files (`entries`), 512 MiB a file, 200 times its
packed size for a file in a ZIP beyond 1 MiB (`entries`), 64 GiB together (`staging`), 64 million pixels (`images`),
16 MiB a captions file, 20,000 characters a caption (`captions`), 64 MiB of captions together (`intake`).
"""

import os
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

from lora_lightning.datasets import colour
from lora_lightning.datasets.caption_rows import read_json, read_lines, read_table
from lora_lightning.datasets.captions import Claim, decode_text, is_list, read_list, read_sidecar
from lora_lightning.datasets.entries import Unusable
from lora_lightning.datasets.intake import Arrival, Intake, Text, nothing_usable
from lora_lightning.datasets.matching import Names
from lora_lightning.datasets.report import FileNote, ImportReport
from lora_lightning.datasets.sources import open_sources
from lora_lightning.datasets.staging import Staging, sweep, sync
from lora_lightning.datasets.store import Dataset
from lora_lightning.errors import DatasetError
from lora_lightning.workspace import Workspace

__all__ = ["FileNote", "ImportReport", "import_sources"]


def import_sources(
    workspace: Workspace, name: str, sources: Sequence[Path], background: str = colour.WHITE
) -> ImportReport:
    """Add pictures and captions to a dataset, which is made when it does not exist.

    Args:
        workspace: where the dataset lives.
        name: of the dataset.
        sources: ZIPs, folders, pictures, captions in text, JSON, JSON lines or CSV, in any mixture.
        background: the colour behind transparent pictures, such as `gray` or `#808080`.

    Raises:
        NameProblem: the name cannot be used.
        InputError: the background is no colour.
        DatasetError: a source is missing, broken, encrypted, too large, or holds nothing that can be used.
        DiskFull: no space left; the dataset is as it was.
    """
    staging = Staging(workspace, name)
    report = ImportReport()
    on = colour.background(background)
    with ExitStack() as stack:
        opened = open_sources(sources, stack)
        stack.enter_context(staging.opened())
        dataset = staging.dataset()
        intake = Intake(dataset, staging, report, on)
        intake.collect(opened)
        if not intake.arrivals and (dataset.next_id() == 1 or not (intake.found or intake.texts)):
            others = f" and {len(opened) - 1} more" if len(opened) > 1 else ""
            raise nothing_usable(f"{opened[0].name}{others}", report.rejected)
        captions = _match(_claims(intake, report), intake.names, report)
        _commit(dataset, intake.arrivals, captions, report)
        staging.publish(dataset)
    return report


_READERS = {".json": read_json, ".jsonl": read_lines, ".csv": read_table}


@dataclass(frozen=True)
class _Ranked:
    """A caption with the scope it was found in; a lower rank has the first word."""

    claim: Claim
    scope: int
    rank: int


def _claims(intake: Intake, report: ImportReport) -> list[_Ranked]:
    """Every caption: first those of files given by themselves, then those beside their picture, then lists."""
    ranked = []
    for text in intake.texts:
        scope = text.source.scope
        try:
            for claim in _read(text, intake.names, report):
                beside = claim.label == text.entry.path
                ranked.append(_Ranked(claim, scope, 0 if scope == 0 else 1 if beside else 2))
        except Unusable as reason:
            if scope == 0:
                raise DatasetError(f"{text.entry.path}: {reason}", "Correct the file and import it again.") from None
            report.reject(text.entry.path, reason)
    return sorted(ranked, key=lambda item: item.rank)


def _read(text: Text, names: Names, report: ImportReport) -> list[Claim]:
    """The captions of one file: a text is a list when its lines name pictures and no picture lies beside it."""
    file = text.entry.path
    if reader := _READERS.get(text.entry.suffix):
        return reader(file, text.data, report.reject)
    content = decode_text(text.data)
    sidecar = read_sidecar(file, content)
    if is_list(content) and not names.beside(text.source.scope, sidecar.path):
        return read_list(file, content)
    return [sidecar]


def _match(ranked: Sequence[_Ranked], names: Names, report: ImportReport) -> dict[tuple[int, str], Claim]:
    """One caption of each kind a picture, by picture number and kind; the others are reported."""
    found: dict[tuple[int, str], Claim] = {}
    for item in ranked:
        try:
            item.claim.check()
            ids = names.find(item.scope, item.claim.path)
        except Unusable as reason:
            report.reject(item.claim.label, reason)
            continue
        for id in ids:
            first = found.setdefault((id, item.claim.kind), item.claim)
            if first.text != item.claim.text:
                report.reject(item.claim.label, f"its picture already has another caption, from {first.label}")
    return found


def _commit(
    dataset: Dataset, arrivals: Sequence[Arrival], claims: Mapping[tuple[int, str], Claim], report: ImportReport
) -> None:
    """Move the pictures in, then make them known with their captions in one transaction."""
    try:
        for arrival in arrivals:
            os.replace(arrival.staged, dataset.path(arrival.picture))
        sync(dataset.images)
        kept = dataset.add([arrival.picture for arrival in arrivals], claims)
    except BaseException:
        sweep(dataset)
        raise
    report.captions = len({id for id, kind in claims if not kind}) - sum(not kind for _, kind in kept)
    for key in kept:
        report.reject(claims[key].label, "a person wrote another caption for it, which stays")
