"""What became of every file of an import."""

from dataclasses import asdict, dataclass, field

from lora_lightning.datasets.names import clean


@dataclass(frozen=True)
class FileNote:
    """A file (for a caption in a list: `captions.json: 0001.png`) and what happened to it."""

    file: str
    reason: str


@dataclass
class ImportReport:
    """The account of one import; it grows while the import works.

    Attributes:
        accepted: the pictures that were added.
        changed: those of them that are read differently from their bytes: turned, on white, first frame, ...
        rejected: files that were left out, and captions that found no picture.
        captions: how many pictures have the caption that this import brought.
    """

    accepted: list[FileNote] = field(default_factory=list)
    changed: list[FileNote] = field(default_factory=list)
    rejected: list[FileNote] = field(default_factory=list)
    captions: int = 0

    def as_dict(self) -> dict[str, object]:
        """The report as the command line prints it."""
        return asdict(self)

    def accept(self, file: str, reason: str, changes: tuple[str, ...]) -> None:
        """Note a picture that was added."""
        self.accepted.append(FileNote(clean(file), reason))
        if changes:
            self.changed.append(FileNote(clean(file), "; ".join(changes)))

    def reject(self, file: str, reason: object) -> None:
        """Note a file or caption that was left out."""
        self.rejected.append(FileNote(clean(file), clean(str(reason))))
