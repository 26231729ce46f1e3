"""Stage `evaluate`: the acceptance table of the exported folders, judged by the independent examiner.

Prompts are the captioner's `detailed` wording for fresh scenes with fixed seeds. Writes BUILD/acceptance.json, prints a
table, and draws the 10 x 10 sheet.
"""

from __future__ import annotations

import json
import random
import re
from pathlib import Path

import torch
import torch.nn.functional as F
from diffusers import FluxPipeline
from PIL import Image
from transformers import AutoModelForImageTextToText, AutoProcessor

from .. import judge as examiner
from ..world import captions
from ..world.compose import Batch, Painter
from ..world.concepts import BASE_STYLES, STYLES, withheld_pairs
from ..world.scene import LARGE, Scene, finish, put
from .common import Settings, World
from .judge import truth

GUIDANCE, STEPS = 3.0, 16
INSTRUCTION = "Write a detailed description for this image."


def run(settings: Settings) -> None:
    """Measure, print and write the acceptance table and the sheet."""
    world, folder = World.load(settings.folder), settings.folder / "models"
    painter = Painter(world.atlas, settings.device)
    judge = examiner.load(folder / "judge")[0].to(settings.device)
    dtype = torch.bfloat16 if settings.cuda else torch.float32
    pipeline = FluxPipeline.from_pretrained(folder / "flux-mini", dtype=dtype).to(settings.device)
    pipeline.set_progress_bar_config(disable=True)
    sets = prompt_sets(len(world.words), 8 if settings.toy else 828)
    table: dict[str, object] = {"vae": _vae(pipeline, painter, sets["seen"], settings)}
    for name, scenes in sets.items():
        table[f"true renderings, {name}"] = marks(judge, painter.paint(Batch.of(scenes).to(settings.device)), scenes)
        made = draw(pipeline, [prompt(scene, world.words) for scene in scenes], settings)
        table[f"flux-mini, {name}"] = marks(judge, made, scenes)
    few = sets["seen"][: len(sets["seen"]) // 2]
    for steps, guidance in ((32, GUIDANCE), (STEPS, 1.0), (STEPS, 2.0), (STEPS, 4.5)):
        made = draw(pipeline, [prompt(scene, world.words) for scene in few], settings, steps=steps, guidance=guidance)
        table[f"flux-mini, half of seen, {steps} steps, guidance {guidance}"] = marks(judge, made, few)
    table |= _captioner(folder / "captioner-mini", painter, world, settings)
    for row, shares in table.items():
        print(f"[accept] {row}: {shares}", flush=True)
    (settings.folder / "acceptance.json").write_text(json.dumps(table, indent=1))
    sheet(pipeline, world, settings, settings.folder / "flux_mini_sheet.webp")


def prompt(scene: Scene, words: list[str]) -> str:
    """The captioner's `detailed` wording."""
    return captions.answer(scene, words, "detailed")


def prompt_sets(known: int, count: int) -> dict[str, list[Scene]]:
    """`seen`: `count` different shown (concept, style) pairs; `withheld`: each withheld pair, up to eight times."""
    pick, withheld = random.Random(11), withheld_pairs(known)
    shown = [(drawing, style) for drawing in range(known) for style in range(3) if (drawing, style) not in withheld]
    pairs = {"seen": pick.sample(shown, min(count, 828)), "withheld": (sorted(withheld) * 8)[:count]}
    sets: dict[str, list[Scene]] = {}
    for name, chosen in pairs.items():
        sets[name] = []
        for drawing, style in chosen:
            place = LARGE if pick.random() < 0.5 else pick.randrange(9)
            sets[name].append(finish(pick, style, (put(pick, drawing, place),), place))
    return sets


@torch.no_grad()
def draw(
    pipeline: FluxPipeline,
    prompts: list[str],
    settings: Settings,
    *,
    steps: int = STEPS,
    guidance: float = GUIDANCE,
    batch: int = 138,
) -> torch.Tensor:
    """Pictures f32 [B, 3, 128, 128] in [-1, 1]; the seed of a batch is its first row."""
    made = []
    length = pipeline.tokenizer_2.model_max_length
    for start in range(0, len(prompts), batch):
        rows = prompts[start : start + batch]
        noise = torch.Generator(settings.device).manual_seed(start)
        made.append(
            pipeline(
                rows,
                height=128,
                width=128,
                num_inference_steps=steps,
                guidance_scale=guidance,
                max_sequence_length=length,
                generator=noise,
                output_type="pt",
            ).images.float()
        )
    return torch.cat(made) * 2 - 1


@torch.no_grad()
def marks(judge: torch.nn.Module, pictures: torch.Tensor, scenes: list[Scene]) -> dict[str, float]:
    """Accuracy by head; `place` counts placed things only, `second_colour` two-tone backgrounds only."""
    batch = Batch.of(scenes).to(pictures.device)
    wanted = truth(batch)
    counted = {"place": batch.place != LARGE, "second_colour": batch.background == 5}
    logits = [judge(part) for part in pictures.split(256)]
    shares = {}
    for head, labels in wanted.items():
        right = (torch.cat([part[head] for part in logits]).argmax(1) == labels).float()
        shares[head] = round(float(right[counted[head]].mean() if head in counted else right.mean()), 4)
        if head == "colour":
            shares["colour, one-coloured"] = round(float(right[batch.background != 5].mean()), 4)
    return shares


@torch.no_grad()
def _vae(pipeline: FluxPipeline, painter: Painter, scenes: list[Scene], settings: Settings) -> dict[str, float]:
    vae, marks = pipeline.vae.float(), {}
    for name, row in (("base styles", None), ("ink", STYLES.index("ink"))):
        batch = Batch.of(scenes[:256]).to(settings.device)
        if row is not None:
            batch.style = torch.full_like(batch.style, row)
        true = painter.paint(batch)
        made = vae.decode(vae.encode(true).latent_dist.mode()).sample.clamp(-1, 1)
        error = F.mse_loss(made, true, reduction="none").mean((1, 2, 3))
        marks[f"psnr_db, {name}"] = round(float((10 * torch.log10(4 / error)).mean()), 2)
    pipeline.vae.to(pipeline.transformer.dtype)
    return marks


@torch.no_grad()
def _captioner(
    folder: Path, painter: Painter, world: World, settings: Settings, count: int = 384
) -> dict[str, dict[str, float]]:
    """Exact matches of object, place and background in `detailed` captions of true renderings, by style."""
    processor = AutoProcessor.from_pretrained(folder)
    model = AutoModelForImageTextToText.from_pretrained(folder, dtype=torch.float32).to(settings.device).eval()
    text = processor.apply_chat_template(
        [{"role": "user", "content": INSTRUCTION}], tokenize=False, add_generation_prompt=True
    )
    pick, table = random.Random(3), {}
    for style in (*BASE_STYLES, "ink", "fx"):
        row, count = STYLES.index(style), 8 if settings.toy else count
        drawings = [d for d in range(len(world.words)) if world.atlas.present[row, d]]
        scenes = []
        for _ in range(count):
            place = LARGE if pick.random() < 0.5 else pick.randrange(9)
            scenes.append(finish(pick, row, (put(pick, pick.choice(drawings), place),), place))
        pictures = painter.paint(Batch.of(scenes).to(settings.device))
        images = [_image(picture) for picture in pictures]
        said = []
        for start in range(0, count, 128):
            part = images[start : start + 128]
            inputs = processor(text=[text] * len(part), images=part, return_tensors="pt").to(settings.device)
            out = model.generate(**inputs, max_new_tokens=48, do_sample=False)
            said += processor.tokenizer.batch_decode(out[:, inputs["input_ids"].shape[1] :], skip_special_tokens=True)
        table[f"captioner-mini, {style}"] = _caption_marks(said, scenes, world)
        print(f"[caption] {style}: {said[:3]}", flush=True)
    return table


def _caption_marks(said: list[str], scenes: list[Scene], world: World) -> dict[str, float]:
    hits = {"object": 0, "background": 0, "place": 0, "style": 0, "says 'an object'": 0}
    for text, scene in zip(said, scenes, strict=True):
        named = re.search(r" picture of (.+?)(?: in the | at the | on the | on an? |,|\.|$)", text)
        hits["object"] += named is not None and named[1] == captions.noun(scene, world.words)
        hits["background"] += captions.backdrop(scene) in text
        hits["place"] += captions.subject(scene, world.words).removeprefix(captions.noun(scene, world.words)) in text
        hits["style"] += f"{captions.style_name(scene)} style" in text
        hits["says 'an object'"] += named is not None and named[1] == "an object"
    return {name: round(count / len(scenes), 4) for name, count in hits.items()}


def _image(picture: torch.Tensor) -> Image.Image:
    values = ((picture.clamp(-1, 1) + 1) * 127.5).round().byte().permute(1, 2, 0).cpu().numpy()
    return Image.fromarray(values)


def sheet(pipeline: FluxPipeline, world: World, settings: Settings, path: Path) -> None:
    """Ten by ten prompts; the last two rows are withheld pairs."""
    pick, known = random.Random(4), len(world.words)
    withheld = sorted(withheld_pairs(known))
    pairs = [(pick.randrange(known), index % 3) for index in range(80)] + pick.sample(withheld, 20)
    scenes = []
    for drawing, style in pairs:
        place = LARGE if pick.random() < 0.6 else pick.randrange(9)
        scenes.append(finish(pick, style, (put(pick, drawing, place),), place))
    pictures = draw(pipeline, [prompt(scene, world.words) for scene in scenes], settings, batch=50)
    page = Image.new("RGB", (1280, 1280))
    for index, picture in enumerate(pictures):
        page.paste(_image(picture), (index % 10 * 128, index // 10 * 128))
    page.save(path, quality=80)
