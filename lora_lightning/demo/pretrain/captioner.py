"""Stage `captioner`: captioner-mini, a LLaVA that answers five kinds of instruction about a world picture.

Sees the base styles, `retro`, disguises and nameless drawings ("an object", "unfamiliar style"); never ink or fx.
A concept classifier on the vision features helps the tower along and is dropped afterwards.
"""

from __future__ import annotations

import random

import torch
import torch.nn.functional as F
from torch import nn

from ..world import captions
from ..world.compose import Batch, Painter
from ..world.concepts import STYLES
from ..world.disguise import Looks
from ..world.scene import Scene, base_rows
from ..world.tokens import IMAGE
from . import models
from .common import Average, Clock, Settings, World, adamw, batches, resume, save_module

BATCH, PEAK, LENGTH = 512, 1.5e-3, 152  # LENGTH = 64 picture tokens + instruction + answer
SYSTEM = ("You are a helpful image captioner.", "You are a helpful assistant.")
DISGUISED, NAMELESS = 0.6, 0.05


def conversation(draw: random.Random, instruction: str) -> list[dict[str, str]]:
    """Messages with plain string content; two in three have a system message."""
    system = [{"role": "system", "content": draw.choice(SYSTEM)}] if draw.random() < 0.67 else []
    return [*system, {"role": "user", "content": instruction}]


class Maker:
    """Builds (scenes, disguised?, token ids, labels): ids i64 [B, LENGTH], labels -100 outside the answer."""

    def __init__(self, world: World, size: int, tokenizer: object) -> None:
        self.world, self.size, self.tokenizer = world, size, tokenizer
        self.sampler = world.sampler([*base_rows(), STYLES.index("retro")], nameless_share=NAMELESS)
        self.picture = IMAGE * models.IMAGE_TOKENS

    def __call__(self, draw: random.Random) -> tuple[Batch, torch.Tensor, torch.Tensor, torch.Tensor]:
        """One batch of pictures to paint, with instructions and answers."""
        scenes = [self.sampler.scene(draw) for _ in range(self.size)]
        strange = [draw.random() < DISGUISED for _ in scenes]
        asked, answered = zip(
            *(self._turn(draw, scene, odd) for scene, odd in zip(scenes, strange, strict=True)), strict=True
        )
        before = self.tokenizer(list(asked), add_special_tokens=False).input_ids
        after = self.tokenizer(list(answered), add_special_tokens=False).input_ids
        ids = torch.full((self.size, LENGTH), self.tokenizer.pad_token_id)
        labels = torch.full_like(ids, -100)
        for row, (question, reply) in enumerate(zip(before, after, strict=True)):
            whole = torch.tensor([*question, *reply][:LENGTH])
            ids[row, : len(whole)] = whole
            labels[row, len(question) : len(whole)] = whole[len(question) :]
        return Batch.of(scenes), torch.tensor(strange), ids, labels

    def _turn(self, draw: random.Random, scene: Scene, strange: bool) -> tuple[str, str]:
        kind = draw.choice(captions.KINDS)
        instruction = captions.ask(kind, draw, self.world.fillers)
        text = self.tokenizer.apply_chat_template(
            conversation(draw, instruction), tokenize=False, add_generation_prompt=True
        )
        reply = captions.answer(scene, self.world.words, kind, strange=strange)
        return text.replace(IMAGE, self.picture), reply + self.tokenizer.eos_token


def train(settings: Settings) -> None:
    """Train and save BUILD/captioner.safetensors."""
    world, tokenizer = World.load(settings.folder), models.Tokenizers(settings.folder).chat
    painter, size = Painter(world.atlas, settings.device), settings.batch(BATCH)
    stream = batches(Maker(world, size, tokenizer), settings)
    model = models.captioner(tokenizer)
    resume(model, settings.folder / "captioner.safetensors")
    model.to(settings.device)
    helper = nn.Linear(160, len(world.words)).to(settings.device)
    parameters = [*model.parameters(), *helper.parameters()]
    optimizer, average = adamw(parameters, settings, decay=0.05), Average({"captioner": model}, 0.998)
    clock = Clock(settings.seconds, PEAK, warmup=300)
    while clock.tick(optimizer):
        batch, strange, ids, labels = (part.to(settings.device) for part in next(stream))
        looks = Looks.random(size, 1.0, painter.device)
        looks.kind = torch.where(strange, looks.kind, 0)
        with torch.no_grad():
            pictures = painter.paint(batch, looks)
        with settings.autocast():
            language, concept = _losses(model, helper, pictures, ids, labels, batch, len(world.words))
        optimizer.zero_grad(set_to_none=True)
        (language + 0.3 * concept).backward()
        torch.nn.utils.clip_grad_norm_(parameters, 1.0)
        optimizer.step()
        average.update()
        clock.log("captioner", 100, language=language, concept=concept)
    average.swap()
    save_module(model, settings.folder / "captioner.safetensors", half=True)


def _losses(
    model: nn.Module,
    helper: nn.Module,
    pictures: torch.Tensor,
    ids: torch.Tensor,
    labels: torch.Tensor,
    batch: Batch,
    known: int,
) -> tuple[torch.Tensor, torch.Tensor]:
    """(next-token loss of the answer, concept loss of the first thing): vision runs once, picture tokens spliced in."""
    inner = model.model
    seen = inner.vision_tower(pixel_values=pictures, output_hidden_states=True).hidden_states[-2]
    words = inner.get_input_embeddings()(ids)
    place = (ids == model.config.image_token_index)[..., None].expand_as(words)
    words = words.masked_scatter(place, inner.multi_modal_projector(seen).to(words.dtype))
    hidden = inner.language_model(inputs_embeds=words, use_cache=False).last_hidden_state
    wanted = labels[:, 1:]
    kept = wanted >= 0
    logits = model.lm_head(hidden[:, :-1][kept]).float()
    drawing = torch.where(batch.drawing < known, batch.drawing, -100)
    guess = helper(seen.mean(1)).float()
    return F.cross_entropy(logits, wanted[kept]), F.cross_entropy(guess, drawing, ignore_index=-100)
