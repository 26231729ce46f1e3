"""Which picture a caption means, by what the files are called."""

from collections.abc import Iterable, Sequence
from pathlib import PurePosixPath

from lora_lightning.datasets.entries import Unusable
from lora_lightning.datasets.names import fold, stem
from lora_lightning.datasets.store import Picture


class NameIndex:
    """Finds pictures by what their files are called: the nearest meaning of a name wins."""

    def __init__(self) -> None:
        self._ids: dict[tuple[str, str], dict[int, None]] = {}  # the numbers in order, each once

    def add(self, path: str, id: int) -> None:
        """Make a picture known under its path, and under less and less of it."""
        for key in self._keys(path):
            self._ids.setdefault(key, {})[id] = None

    def beside(self, path: str) -> list[int]:
        """Pictures of this path, or in this folder with this stem."""
        return self._first(self._keys(path)[:4])

    def anywhere(self, path: str) -> list[int]:
        """Pictures of this name or stem in whatever folder."""
        return self._first(self._keys(path)[4:])

    def _first(self, keys: Sequence[tuple[str, str]]) -> list[int]:
        return next((list(self._ids[key]) for key in keys if key in self._ids), [])

    @staticmethod
    def _keys(path: str) -> list[tuple[str, str]]:
        name = PurePosixPath(path).name
        return [
            ("path", path),
            ("folded path", fold(path)),
            ("stem path", stem(path)),
            ("folded stem path", fold(stem(path))),
            ("name", fold(name)),
            ("stem", fold(stem(name))),
        ]


class Names:
    """What every picture is called, seen from each source of an import and from the dataset."""

    def __init__(self, stored: Iterable[Picture]) -> None:
        self._scopes: dict[int, NameIndex] = {}
        self._import = NameIndex()
        self._dataset = NameIndex()
        for picture in stored:
            self._dataset.add(picture.name, picture.id)

    def add(self, scope: int, path: str, id: int) -> None:
        """Make a picture of a source known."""
        self._scopes.setdefault(scope, NameIndex()).add(path, id)
        self._import.add(path, id)

    def beside(self, scope: int, path: str) -> list[int]:
        """Pictures of the source with this path, or in this folder with this stem."""
        return self._scopes.get(scope, NameIndex()).beside(path)

    def find(self, scope: int, path: str) -> list[int]:
        """The pictures that a caption is meant for.

        In the caption's own source, all pictures of that path get it, or all that share its folder and stem.
        Elsewhere the name must be unmistakable: in that source, then in the whole import, then in the dataset.

        Raises:
            Unusable: there is no such picture, or the name fits several.
        """
        if ids := self.beside(scope, path):
            return ids
        for index in (self._scopes.get(scope, NameIndex()), self._import, self._dataset):
            ids = index.beside(path) or index.anywhere(path)
            if len(ids) == 1:
                return ids
            if ids:
                raise Unusable(f"the name fits {len(ids)} pictures; name their folders too")
        raise Unusable("no picture of this name")
