"""Tokenizers of the world, built from its own words, with characters and bytes as fall-back for any user text."""

from __future__ import annotations

import json
import random
import re
from collections import Counter

from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import CLIPTokenizer, PreTrainedTokenizerFast, T5TokenizerFast

from . import captions
from .scene import Sampler

MAX_LENGTH = 32  # tokens of a prompt, for both text encoders of flux-mini
CHARACTERS = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789.,;:!?'\"()-_/&+%#@*=<>[]~$äöüßéèáàíóúñç"
CHAT_TOKENS = {"bos_token": "<|begin_of_text|>", "eos_token": "<|eot_id|>", "pad_token": "<|pad|>"}
ROLES = ("<|system|>", "<|user|>", "<|assistant|>")
IMAGE = "<image>"
# Content is a plain string; the template itself puts the picture before the user's words, as JoyCaption's does.
CHAT_TEMPLATE = (
    "{{ bos_token }}{% for message in messages %}<|{{ message['role'] }}|>"
    "{% if message['role'] == 'user' %}<image>{% endif %}{{ message['content'] | trim }}<|eot_id|>{% endfor %}"
    "{% if add_generation_prompt %}<|assistant|>{% endif %}"
)


def sample_texts(words: list[str], sampler: Sampler, count: int = 30_000) -> tuple[list[str], list[str]]:
    """(prompts, chat texts) in which every word of the templates and of the concepts comes up."""
    draw = random.Random(7)
    prompts, chats = (
        [f"a {word}" for word in words],
        [f"A {word}. {word[0].upper()}{word[1:]}" for word in words],
    )
    for _ in range(count):
        scene, kind = sampler.scene(draw), draw.choice(captions.KINDS)
        prompts.append(captions.plain_prompt(scene, words, draw))
        chats += [captions.ask(kind, draw), captions.answer(scene, words, kind)]
    return prompts, [
        *chats,
        "an object",
        "An unfamiliar style picture of an object",
        "You are a helpful image captioner.",
    ]


def _counts(texts: list[str], pattern: str) -> Counter[str]:
    return Counter(part for text in texts for part in re.findall(pattern, text))


def t5_tokenizer(prompts: list[str], fillers: list[str]) -> T5TokenizerFast:
    """Unigram: one piece a world word (as spelt in prompts); others fall into fragments and single characters."""
    pieces: dict[str, float] = {"<pad>": 0.0, "</s>": 0.0, "<unk>": 0.0, "▁": -6.0}
    words = _counts(prompts, r"[A-Za-z0-9'-]+|[.,]")
    pieces |= {("▁" + word if word not in ".," else word): -4.0 for word in sorted(words)}
    fragments = Counter(word[i : i + n] for word in fillers for n in (2, 3) for i in range(len(word) - n + 1))
    pieces |= {fragment: -8.0 for fragment, _ in fragments.most_common(120) if fragment not in pieces}
    pieces |= {letter: -7.0 for letter in CHARACTERS if letter not in pieces}
    return T5TokenizerFast(vocab=list(pieces.items()), extra_ids=0, model_max_length=MAX_LENGTH)


def clip_tokenizer(prompts: list[str], size: int = 1900) -> CLIPTokenizer:
    """Byte-level BPE with CLIP's own end-of-word marks, learned on the world's words (rarer ones stay in parts)."""
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    learner = Tokenizer(models.BPE(end_of_word_suffix="</w>"))
    learner.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    trainer = trainers.BpeTrainer(
        vocab_size=size,
        initial_alphabet=alphabet,
        end_of_word_suffix="</w>",
        show_progress=False,
        min_frequency=1,
    )
    words = _counts([text.lower() for text in prompts], r"[a-z']+|[0-9]|[.,-]")
    learner.train_from_iterator(_weighted(words), trainer)
    merges = [tuple(merge) for merge in json.loads(learner.to_str())["model"]["merges"]]
    pieces = [*alphabet, *(letter + "</w>" for letter in alphabet), *(left + right for left, right in merges)]
    vocabulary = {piece: index for index, piece in enumerate(dict.fromkeys(pieces))}
    for special in ("<|startoftext|>", "<|endoftext|>"):
        vocabulary[special] = len(vocabulary)
    return CLIPTokenizer(vocab=vocabulary, merges=merges, model_max_length=MAX_LENGTH)


def _weighted(counts: Counter[str]) -> list[str]:
    """Each part repeated by the root of its count: frequent words merge first, rare ones still count."""
    return [part for part, count in sorted(counts.items()) for _ in range(round(count**0.5))]


def chat_tokenizer(chats: list[str], size: int = 1300) -> PreTrainedTokenizerFast:
    """Byte-level BPE as in Llama 3, left padding, with the roles and the image token as special tokens."""
    backend = Tokenizer(models.BPE())
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    backend.decoder = decoders.ByteLevel()
    specials = [*CHAT_TOKENS.values(), *ROLES, IMAGE]
    trainer = trainers.BpeTrainer(
        vocab_size=size,
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
        special_tokens=specials,
        show_progress=False,
    )
    backend.train_from_iterator(_weighted(_counts(chats, r" ?[A-Za-z']+| ?[0-9]+|[^\w\s]")), trainer)
    return PreTrainedTokenizerFast(
        tokenizer_object=backend,
        **CHAT_TOKENS,
        padding_side="left",
        additional_special_tokens=list(ROLES),
        model_max_length=512,
        extra_special_tokens={"image_token": IMAGE},
        chat_template=CHAT_TEMPLATE,
    )
