"""How a training adapter begins when not as the base: as a LoRA file says, or beside a frozen LoRA."""

from pathlib import Path

import torch
from diffusers import DiffusionPipeline, ModelMixin

from lora_lightning.errors import InputError, LoraFileError
from lora_lightning.models.base import Family
from lora_lightning.models.hub import fetch
from lora_lightning.models.lora import ASSISTANT, TRAINED, Layer, adapted, kind_of, weights_of
from lora_lightning.models.lora_files.diffusers import kind_in, load, read_header
from lora_lightning.models.source import HUB_ID

CONTINUED = "continued"


def targets_of(family: Family, preset: str, modules: str = "", kind: str = "lora") -> str:
    """The regular expression over the linears to adapt: `modules` itself, or that of a preset.

    Raises:
        InputError: the family has no such preset, or no file for such a kind of adapter.
    """
    if kind not in family.kinds:
        raise InputError(
            f"lora.kind={kind} has no file for {family.architecture} that other tools read",
            f"Use one of: {', '.join(family.kinds)}.",
        )
    if modules or preset in family.lora_targets:
        return modules or family.lora_targets[preset]
    raise InputError(
        f"lora.targets={preset} is not known for {family.architecture}: which of its blocks do what has not been "
        "measured",
        f"Use one of: {', '.join(family.lora_targets)}; or name modules with lora.modules.",
    )


def continue_from(pipeline: DiffusionPipeline, path: Path) -> None:
    """Give the trained adapter the weights of a LoRA file, so that it changes the base as the file does.

    Args:
        pipeline: around the transformer with the trained adapter.
        path: the file, of any layout that can be loaded.

    Raises:
        LoraFileError: it cannot be read, or is of another kind, rank or set of modules than the trained adapter.
    """
    transformer = pipeline.transformer
    trained = dict(adapted(transformer, TRAINED))
    kind = kind_of(next(iter(trained.values())))
    read_header(path)
    if (found := kind_in(path)) != kind:
        raise LoraFileError(f"{path} holds a {found}, but a {kind} is to be trained", f"Set lora.kind={found}.")
    load(pipeline, path, CONTINUED)
    transformer.set_adapter(TRAINED)
    held = dict(adapted(transformer, CONTINUED))
    try:
        _same_modules(path, set(held), set(trained))
        for module, layer in trained.items():
            _take(path, module, layer, held[module])
    finally:
        transformer.delete_adapters(CONTINUED)


def assist(pipeline: DiffusionPipeline, source: str) -> None:
    """Put a frozen LoRA beside the trained one: it acts whenever the transformer is asked, but not in `draw`.

    Not fused: taking it off again is then exact, also with a base in 4 bit or bf16.

    Args:
        pipeline: around the transformer with the trained adapter.
        source: a LoRA file, or the id of a Hub repository that holds one.

    Raises:
        LoraFileError: it cannot be read, or fits another model.
        ModelError: it cannot be downloaded.
    """
    transformer = pipeline.transformer
    load(pipeline, _file(source), ASSISTANT)
    transformer.set_adapter([TRAINED, ASSISTANT])  # the trained one first: a DoRA scales what the base alone says
    for _, layer in adapted(transformer, ASSISTANT):
        for weight in weights_of(layer, ASSISTANT).values():
            weight.requires_grad_(False)


def begin(family: Family, transformer: ModelMixin, *, init_from: Path | None, assistant: str) -> None:
    """Both, where wanted."""
    if init_from or assistant:
        pipeline = family.pipeline(transformer)
        if init_from:
            continue_from(pipeline, init_from)
        if assistant:
            assist(pipeline, assistant)
        family.release()


def _file(source: str) -> Path:
    path = Path(source).expanduser()
    if path.is_file() or not HUB_ID.fullmatch(source):
        return path
    kind = "*.safetensors"
    found = list(fetch(source, [kind], lambda folder: any(folder.glob(kind))).glob(kind))
    if len(found) != 1:
        raise LoraFileError(f"{source} holds {len(found)} .safetensors files", "Download the right one; give its path.")
    return found[0]


def _same_modules(path: Path, held: set[str], trained: set[str]) -> None:
    if held == trained:
        return
    module = sorted(held ^ trained)[0]
    where = "only in the file" if module in held else "only in the recipe"
    raise LoraFileError(
        f"{path} adapts {len(held)} linears, the recipe {len(trained)}; {module} is {where}",
        "Set lora.targets or lora.modules as that LoRA was trained with; its header or model card says so.",
    )


@torch.no_grad()
def _take(path: Path, module: str, layer: Layer, held: Layer) -> None:
    """Copy one layer's weights, the quotient of the scales into the first factor."""
    ours, theirs = weights_of(layer, TRAINED), weights_of(held, CONTINUED)
    shapes = {kind: tuple(weight.shape) for kind, weight in ours.items()}
    if shapes != (others := {kind: tuple(weight.shape) for kind, weight in theirs.items()}):
        raise LoraFileError(
            f"{module} has factors of shape {others} in {path}, and {shapes} in the recipe",
            "Set lora.rank, lora.ranks and lora.factor as that LoRA was trained with.",
        )
    scale = held.scaling[CONTINUED] / layer.scaling[TRAINED]
    for place, (kind, weight) in enumerate(ours.items()):
        weight.copy_(theirs[kind].float() * (1.0 if place else scale))
