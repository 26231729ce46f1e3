"""Captions and prompts: what is missing, what the text encoders do not read, what would be learned by mistake."""

from collections.abc import Sequence
from functools import lru_cache

from lora_lightning.checks.model import FLUX2, pipeline_of
from lora_lightning.checks.report import Report, counted, example
from lora_lightning.datasets import phrases
from lora_lightning.datasets.checks import loop
from lora_lightning.datasets.store import Picture
from lora_lightning.datasets.tokens import Meter, meters
from lora_lightning.models.config import resolve_base
from lora_lightning.recipe import Recipe
from lora_lightning.train.prompts import parse
from lora_lightning.train.texts import MARK, Wording, has_trigger, word

FEWEST_ALIKE = 3
_REFUSAL = phrases.finder(phrases.REFUSAL)


def check_captions(recipe: Recipe, pictures: Sequence[Picture], report: Report) -> None:
    """Everything about a dataset's captions that can be seen in their text."""
    captioned = [picture for picture in pictures if picture.caption]
    _missing(recipe, len(pictures) - len(captioned), report)
    _trigger(recipe, captioned, report)
    if not recipe.trigger and any(MARK in picture.caption for picture in captioned):
        report.block("trigger", f"captions say {MARK}, and there is no trigger word", "set trigger=WORD")
    _tokens(recipe, captioned, report)
    _broken(captioned, report)
    texts = [picture.caption for picture in captioned]
    if len(texts) >= FEWEST_ALIKE and len(set(texts)) == 1:
        hint = "describe what differs between the pictures; what is the same goes to the trigger"
        report.warn("dataset.name", f"all {len(texts)} captions are the same", hint)
    orders = Wording(1, recipe.dataset.keep_tags)
    if recipe.dataset.shuffle_tags and texts and all(len(orders.of([text])[0]) == 1 for text in texts):
        hint = "set dataset.shuffle_tags=0: sentences stay as they are"
        report.warn("dataset.shuffle_tags", "no caption is a list of tags that could be shuffled", hint)


def check_sample_prompts(recipe: Recipe, report: Report) -> None:
    """Samples that cannot show what was learned."""
    prompts = [parse(prompt).prompt for prompt in recipe.sample.prompts]
    if not recipe.trigger and any(MARK in prompt for prompt in prompts):
        report.block("sample.prompts", f"a prompt says {MARK}, and there is no trigger word", "set trigger=WORD")
    elif recipe.trigger and prompts and not any(has_trigger(prompt, recipe.trigger) for prompt in prompts):
        hint = f"put {recipe.trigger} into at least one of them: without it they show the base"
        report.warn("sample.prompts", f"no sample prompt holds the trigger word {recipe.trigger!r}", hint)


def _missing(recipe: Recipe, bare: int, report: Report) -> None:
    if bare:
        used = f"the trigger {recipe.trigger!r}" if recipe.trigger else "an empty caption"
        hint = f"training uses {used} for them; or caption first"
        report.warn("dataset.name", counted(bare, "picture", "without a caption"), hint)


def _trigger(recipe: Recipe, captioned: Sequence[Picture], report: Report) -> None:
    """As training matches it: a whole word in any case."""
    if not recipe.trigger:
        report.warn("trigger", "there is no trigger word", "the LoRA will always be on, whatever the prompt")
        return
    without = [picture for picture in captioned if not has_trigger(picture.caption, recipe.trigger)]
    if without:
        lacking = f"{len(without)} captions lack" if len(without) > 1 else "1 caption lacks"
        report.warn("trigger", f"{lacking} {recipe.trigger!r}", "training puts it before them")


def _tokens(recipe: Recipe, captioned: Sequence[Picture], report: Report) -> None:
    """What the text encoder does not read at all, and a trigger that CLIP does not reach."""
    found, flux2 = meters(resolve_base(recipe.model.base)), pipeline_of(recipe.model.base) in FLUX2
    guess = " (an estimate: the tokenizer is not here)" if found.t5.estimated else ""
    counts = found.t5.counts([picture.caption for picture in captioned])
    long = [picture.name for picture, count in zip(captioned, counts, strict=True) if count > found.t5.limit]
    if long:
        reader = "the text encoder" if flux2 else "T5"
        told = f"{counted(len(long), 'caption', 'longer')} than the {found.t5.limit} tokens that {reader} reads"
        report.warn("dataset.name", told + guess + example(long), "the rest is never seen: shorten them")
    late = [] if flux2 else _late(captioned, recipe.trigger, found.clip)
    if late:
        told = f"{counted(len(late), 'caption')} with the trigger behind the {found.clip.limit} tokens that CLIP reads"
        report.warn("trigger", told + example(late), "move it to the start: CLIP's vector carries the subject")


def _late(captioned: Sequence[Picture], trigger: str, clip: Meter) -> list[str]:
    """The pictures whose captions say the trigger too late: what stands before it fills all that CLIP reads."""
    if not trigger:
        return []
    wanted = trigger.lower()
    found = word(wanted)
    texts = {picture.name: picture.caption.lower() for picture in captioned}
    said = {name: found.search(text) if wanted in text else None for name, text in texts.items()}
    # A token has one letter at least, so that nothing before the limit in letters is behind the limit in tokens.
    before = {p.name: p.caption[: at.start()] for p in captioned if (at := said[p.name]) and at.start() >= clip.limit}
    counts = clip.counts(list(before.values()))
    return [name for name, tokens in zip(before, counts, strict=True) if tokens >= clip.limit]


def _broken(captioned: Sequence[Picture], report: Report) -> None:
    names = [picture.name for picture in captioned if _is_broken(picture.caption)]
    if names:
        told = f"{counted(len(names), 'caption')} with a loop or a refusal{example(names)}"
        report.warn("dataset.name", told, "re-roll them: they would be learned")


@lru_cache(2**15)
def _is_broken(caption: str) -> bool:
    """Remembered, since the Train page asks again at every click."""
    return bool(loop(caption) or _REFUSAL(caption))
