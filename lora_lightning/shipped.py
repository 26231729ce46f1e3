"""The recipes that come with the package: a kind of LoRA, gently or not, fitted to a card's memory or not.

    KIND[-gentle][-80gb|-24gb|-16gb|-12gb|-8gb]      such as style, style-gentle, style-12gb, style-gentle-12gb

Each word is a file; the values of a later one lie over those of the ones before it.
"""

from itertools import product
from pathlib import Path

FOLDER = Path(__file__).parent / "recipes"
KINDS = ("character", "product", "style")


def names() -> list[str]:
    """Every name, sorted: the kinds with their variants, and whatever else lies in the folder."""
    joined = (
        "-".join(filter(None, words)) for words in product(KINDS, ["", *_words("variants")], ["", *_words("memory")])
    )
    return sorted({*joined, *(path.stem for path in FOLDER.glob("*.yaml"))})


def overview() -> str:
    """The names in a line, the variants only once."""
    others = [path.stem for path in sorted(FOLDER.glob("*.yaml")) if path.stem not in KINDS]
    cards = sorted(_words("memory"), key=lambda card: -int(card.removesuffix("gb")))
    variants = "".join(f"[-{word}]" for word in _words("variants")) + f"[-{'|-'.join(cards)}]"
    return f"{', '.join(KINDS)} (each also with {variants}), {', '.join(others)}"


def layers(name: str) -> list[Path]:
    """The files behind one of `names`, the kind first."""
    if (whole := FOLDER / f"{name}.yaml").is_file():
        return [whole]
    kind, *words = name.split("-")
    return [FOLDER / f"{kind}.yaml", *(next(FOLDER.glob(f"*/{word}.yaml")) for word in words)]


def _words(group: str) -> list[str]:
    return sorted(path.stem for path in (FOLDER / group).glob("*.yaml"))
