"""Stage `prepare` (CPU, needs npm and resvg_py): atlas, filler words and the three tokenizers."""

from __future__ import annotations

import json
import re
from pathlib import Path

from ..world import atlas, tokens
from ..world.scene import Sampler, base_rows
from .common import Settings


def run(settings: Settings) -> None:
    """Fill the build folder with everything that later stages read."""
    sources = settings.folder / "npm"
    atlas.fetch(sources)
    drawn = atlas.draw(sources) if not (settings.folder / "atlas.npz").exists() else None
    if drawn is not None:
        drawn.save(settings.folder / "atlas.npz")
    world = atlas.Atlas.load(settings.folder / "atlas.npz")
    fillers = filler_words(sources, world.words)
    (settings.folder / "fillers.json").write_text(json.dumps(fillers))
    sampler = Sampler(len(world.words), world.present.tolist(), base_rows(), nameless_share=0.03)
    prompts, chats = tokens.sample_texts(world.words, sampler)
    folder = settings.folder / "tokenizers"
    tokens.t5_tokenizer(prompts, fillers).save_pretrained(folder / "t5")
    tokens.clip_tokenizer(prompts).save_pretrained(folder / "clip")
    tokens.chat_tokenizer(chats).save_pretrained(folder / "chat")


def filler_words(sources: Path, words: list[str]) -> list[str]:
    """English words (emojibase tags and labels) that name nothing in this world."""
    data = json.loads((sources / atlas.folder_name(atlas.LABELS) / "package/en/data.json").read_text())
    known = {part for word in words for part in word.split()}
    found = {word for entry in data for word in [*entry.get("tags", []), *entry["label"].lower().split()]}
    return sorted(word for word in found if re.fullmatch("[a-z]{3,9}", word) and word not in known)
