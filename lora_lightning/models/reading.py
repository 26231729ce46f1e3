"""Prompts that are read before the transformer is loaded."""

import logging
from collections.abc import Callable, Iterable

from lora_lightning.models.base import Family, TextEmbedding
from lora_lightning.models.device import has_room
from lora_lightning.runs.reporter import Reporter

log = logging.getLogger("lora_lightning")


def read(
    family: Family, on_cpu: Callable[[], Family], prompts: Iterable[str], reporter: Reporter
) -> dict[str, TextEmbedding]:
    """Each text once, embedded; the text encoders are let go.

    Args:
        family: on the device that draws.
        on_cpu: opens it on the CPU, which reads where the device has no room for the text encoders.
        prompts: in any number.
        reporter: told of each.
    """
    reader = family
    if not has_room(family.device, family.text_encoder.folders):
        log.info("the text encoders do not fit on the GPU: the CPU reads the prompts")
        reader = on_cpu()
    wanted = list(dict.fromkeys(prompts))
    reporter.phase("reading the prompts", len(wanted))
    texts: dict[str, TextEmbedding] = {}
    for text in wanted:
        reporter.check_stop()
        texts[text] = reader.encode_text([text])
        reporter.advance(len(texts))
    reader.release()
    family.empty_text = reader.empty_text
    return texts
