"""What the captioners that transformers opens have in common."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from transformers import (
    BitsAndBytesConfig,
    GenerationConfig,
    PreTrainedModel,
    PreTrainedTokenizerBase,
    StoppingCriteria,
    StoppingCriteriaList,
)

from lora_lightning.caption.base import End, Quantize, Request
from lora_lightning.caption.loops import runs_in_circles
from lora_lightning.caption.noise import generator, processors
from lora_lightning.errors import InputError, ModelError

SMALL_BYTES = 2 * 2**30
LOOK_EVERY = 8
"""Tokens between two looks for loops; each look waits for the device."""


@dataclass(frozen=True)
class Opened:
    """A model and its processor or tokenizer."""

    model: PreTrainedModel
    processor: Any


def open_model(
    folder: Path, device: torch.device, quantize: Quantize, kind: Any, processor: Callable[[], Any], keep: Sequence[str]
) -> Opened:
    """Open the model of a captioner.

    On a GPU it works in bf16; on the CPU in bf16 too when it is large, for memory and speed, else in exact fp32.

    Args:
        folder: with config.json and safetensors.
        device: the whole model goes there.
        quantize: how its linears are stored.
        kind: a class of transformers with `from_pretrained`.
        processor: opens what prepares the inputs.
        keep: modules that are never quantised, by their full names: transformers matches from the beginning, and a list
            of one's own switches off its default, which spares the output layer.

    Raises:
        ModelError: the folder is damaged or incomplete.
    """
    weights_bytes = sum(path.stat().st_size for path in folder.glob("*.safetensors"))
    dtype = torch.float32 if device.type == "cpu" and weights_bytes < SMALL_BYTES else torch.bfloat16
    try:
        prepares = processor()
        model, loading = kind.from_pretrained(
            folder,
            dtype=dtype,
            device_map={"": device},
            use_safetensors=True,
            output_loading_info=True,
            quantization_config=_quantization(quantize, dtype, keep),
        )
    except (ModelError, torch.OutOfMemoryError):
        raise
    except Exception as error:  # damaged files may raise anything
        first = (str(error).strip().splitlines() or [type(error).__name__])[0]
        raise ModelError(f"captioner {folder} cannot be opened: {first}", "Download it again.") from error
    if loading["missing_keys"]:
        missing = sorted(loading["missing_keys"])
        raise ModelError(f"captioner {folder} lacks {len(missing)} weights, such as {missing[0]}", "Download it again.")
    return Opened(model.eval(), prepares)


def _quantization(quantize: Quantize, dtype: torch.dtype, keep: Sequence[str]) -> BitsAndBytesConfig | None:
    """LLM.int8 (Dettmers et al. 2022, arXiv 2208.07339), or nf4 (2023, arXiv 2305.14314) with double quantisation."""
    if quantize == "none":
        return None
    common: dict[str, Any] = {"llm_int8_skip_modules": list(keep)}
    if quantize == "int8":
        return BitsAndBytesConfig(load_in_8bit=True, **common)
    return BitsAndBytesConfig(
        load_in_4bit=True,
        bnb_4bit_quant_type="nf4",
        bnb_4bit_use_double_quant=True,
        bnb_4bit_compute_dtype=dtype,
        **common,
    )


def refuse_quantize(what: str, quantize: Quantize) -> None:
    """For captioners so small that quantising them would save nothing.

    Raises:
        InputError: something else than "none" is asked for.
    """
    if quantize != "none":
        raise InputError(
            f"caption.quantize={quantize} does not fit {what}, which is small", "Set caption.quantize=none."
        )


def set_endings(model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase) -> list[int]:
    """Leave nothing of a checkpoint's own way to generate but the tokens that end a text, which are returned.

    Its temperature, top-p, beams or suppressed tokens would count in silence beside what the recipe says.
    """
    own = model.generation_config
    ends = own.eos_token_id if own.eos_token_id is not None else tokenizer.eos_token_id
    ends = ends if isinstance(ends, list) else [ends]
    if tokenizer.pad_token is None:
        tokenizer.pad_token = tokenizer.eos_token
    model.generation_config = GenerationConfig(
        eos_token_id=ends,
        pad_token_id=tokenizer.pad_token_id,
        bos_token_id=tokenizer.bos_token_id,
        decoder_start_token_id=own.decoder_start_token_id,
    )
    return ends


class StopLoops(StoppingCriteria):  # type: ignore[misc]
    """Ends each row that repeats itself; the others go on.

    Args:
        start: tokens before the first written one.
        ends: tokens that end a text, after which a row is padded.
    """

    def __init__(self, start: int, ends: Sequence[int]) -> None:
        self.looped: set[int] = set()
        self._start, self._ends = start, set(ends)

    def __call__(self, input_ids: Tensor, scores: Tensor, **kwargs: Any) -> Tensor:
        """Which rows have to end (B); `input_ids` is BL."""
        if (input_ids.shape[1] - self._start) % LOOK_EVERY == 0:
            for number, ids in enumerate(input_ids[:, self._start :].tolist()):
                if not self._ends.intersection(ids) and runs_in_circles(ids):
                    self.looped.add(number)
        return torch.tensor([row in self.looped for row in range(len(input_ids))], device=input_ids.device)


@dataclass(frozen=True)
class Written:
    """The tokens of a text, without the one that ended it, and why it ended."""

    ids: list[int]
    end: End


@torch.inference_mode()
def generate(
    model: PreTrainedModel, inputs: dict[str, Any], requests: Sequence[Request], ends: Sequence[int], start: int
) -> list[Written]:
    """What transformers' own loop writes for each request.

    Args:
        model: its generation configuration is made by `set_endings`.
        inputs: of the whole batch, prompts padded on the left.
        requests: with the same sampling.
        ends: tokens that end a text.
        start: how many tokens of the output come before the first written one.
    """
    sampling = requests[0].sampling
    loops = StopLoops(start, ends)
    ids_BL = model.generate(
        **inputs,
        max_new_tokens=sampling.max_tokens,
        do_sample=False,
        num_beams=1,
        logits_processor=processors(sampling, [generator(request.seed, model.device) for request in requests]),
        stopping_criteria=StoppingCriteriaList([loops]),
    )
    return [_written(ids, ends, number in loops.looped) for number, ids in enumerate(ids_BL[:, start:].tolist())]


def _written(ids: list[int], ends: Sequence[int], looped: bool) -> Written:
    stop = next((place for place, token in enumerate(ids) if token in ends), len(ids))
    if looped:
        return Written(ids[:stop], "looped")
    return Written(ids[:stop], "done" if stop < len(ids) else "cut")
