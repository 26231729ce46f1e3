"""Stage `judge`: the independent examiner, trained on true renderings of every concept and style, ink and fx too."""

from __future__ import annotations

import random

import torch
import torch.nn.functional as F

from .. import judge as examiner
from ..world.compose import Batch, Painter
from ..world.concepts import STYLES
from ..world.scene import BACKGROUNDS, COLOUR_NAMES, PLACES
from .common import Average, Clock, Settings, World, adamw, batches

BATCH, PEAK = 512, 2e-3
JUDGED = STYLES[:5]


def truth(batch: Batch) -> dict[str, torch.Tensor]:
    """Class indices by head, i64 [B] each."""
    return {
        "concept": batch.drawing,
        "style": batch.style,
        "place": batch.place,
        "background": batch.background,
        "colour": batch.colour,
        "second_colour": batch.second_colour,
    }


def roughen(pictures: torch.Tensor) -> torch.Tensor:
    """Blur (down and up again) and noise on half of the rows: generated pictures are never pixel-clean."""
    size = pictures.shape[-1]
    small = F.interpolate(pictures, scale_factor=random.uniform(0.4, 0.9), mode="bilinear", antialias=True)
    soft = F.interpolate(small, size=(size, size), mode="bilinear")
    rows = torch.rand(len(pictures), 1, 1, 1, device=pictures.device) < 0.5
    noise = torch.randn_like(pictures) * (0.06 * torch.rand(len(pictures), 1, 1, 1, device=pictures.device))
    return torch.where(rows, soft, pictures) + noise


def train(settings: Settings) -> None:
    """Train and save BUILD/judge/, and print its accuracy on true renderings."""
    world = World.load(settings.folder)
    painter = Painter(world.atlas, settings.device)
    sampler = world.sampler(list(range(5)), two_share=0.0, hold_out=False)
    size = settings.batch(BATCH)
    stream = batches(lambda draw: Batch.of([sampler.scene(draw) for _ in range(size)]), settings)
    net = examiner.Judge(len(world.words)).to(settings.device, memory_format=torch.channels_last)
    run = settings.compiled(net)
    optimizer, average = adamw(list(net.parameters()), settings, decay=0.05), Average({"judge": net}, 0.995)
    clock = Clock(settings.seconds, PEAK, warmup=100)
    while clock.tick(optimizer):
        batch = next(stream).to(settings.device)
        with torch.no_grad():
            pictures = roughen(painter.paint(batch)).to(memory_format=torch.channels_last)
        with settings.autocast():
            logits = run(pictures)
        wanted = truth(batch)
        loss = sum(F.cross_entropy(logits[head].float(), wanted[head]) for head in wanted)
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        optimizer.step()
        average.update()
        hit = (logits["concept"].argmax(1) == wanted["concept"]).float().mean()
        clock.log("judge", 100, loss=loss, concept=hit)
    average.swap()
    names = examiner.Names(world.words, list(JUDGED), list(PLACES), list(BACKGROUNDS), list(COLOUR_NAMES))
    examiner.save(net, names, settings.folder / "judge")
    print("[judge]", accuracy(net.eval(), painter, sampler, settings), flush=True)


@torch.no_grad()
def accuracy(net: torch.nn.Module, painter: Painter, sampler: object, settings: Settings) -> dict[str, float]:
    """Accuracy by head on fresh true renderings."""
    draw, hits = random.Random(5), {}
    for _ in range(1 if settings.toy else 16):
        batch = Batch.of([sampler.scene(draw) for _ in range(settings.batch(256))]).to(settings.device)
        logits = net(painter.paint(batch))
        for head, wanted in truth(batch).items():
            hits.setdefault(head, []).append((logits[head].argmax(1) == wanted).float().mean())
    return {head: round(float(torch.stack(rows).mean()), 4) for head, rows in hits.items()}
