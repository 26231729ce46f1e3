"""Captioning as a Lightning predict loop; captions land when they are done, not batch by batch."""

import logging
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from itertools import count

import torch
from lightning.pytorch import LightningModule

from lora_lightning.caption.base import Answer, Captioner, Request, Stream, Streaming
from lora_lightning.caption.plan import Item, Plan
from lora_lightning.caption.streams import open_stream
from lora_lightning.caption.texts import tidy
from lora_lightning.datasets.store import Picture
from lora_lightning.errors import OutOfMemory

log = logging.getLogger("lora_lightning")

NOTHING = "the captioner said nothing about it"
LOOPED = "the captioner repeated itself without end; another seed or prompt may help"


@dataclass(frozen=True)
class Result:
    """A picture with its caption, or why it has none."""

    picture: Picture
    text: str = ""
    reason: str = ""


@dataclass
class _Case:
    """A picture that is being described: its texts so far, in the order of its prompts, and why it will have none."""

    picture: Picture
    texts: list[str | None]
    reason: str = ""


@dataclass(frozen=True)
class _Question:
    """One question about a picture; `attempt` counts its re-rolls."""

    case: _Case
    place: int
    request: Request
    attempt: int = 0


@dataclass(frozen=True)
class Tools:
    """What a process describes pictures with; the tagger's answer takes the place of {tags}."""

    captioner: Captioner | Streaming
    tagger: Captioner | None = None


class CaptionModule(LightningModule):
    """Describes batches of pictures; when memory runs out, fewer at once.

    Args:
        load: opens the models on the device of this process.
        plan: what is asked.
        size: pictures described at once.
        land: is given each result as soon as it is there.
        guard: stands around the work, to see its errors.
    """

    def __init__(
        self,
        load: Callable[[torch.device], Tools],
        plan: Plan,
        size: int,
        land: Callable[[Sequence[Result]], None],
        guard: Callable[[], AbstractContextManager[None]] = nullcontext,
    ) -> None:
        super().__init__()
        self._load, self._plan, self.size, self._land, self._guard = load, plan, size, land, guard
        self._keys = count()
        self._asked: dict[int, _Question] = {}
        self._waiting: list[int] = []

    def setup(self, stage: str) -> None:
        """Load where Lightning has put this process."""
        with self._guard():
            self.use(self._load(self.trainer.strategy.root_device))

    def use(self, tools: Tools) -> None:
        """Describe with these models."""
        self._tools = tools
        self._stream: Stream = open_stream(tools.captioner, self.size)

    def teardown(self, stage: str) -> None:
        """Stop preparing pictures that nobody waits for."""
        self._stream.close()

    def transfer_batch_to_device(self, batch: list[Item], device: torch.device, dataloader_idx: int) -> list[Item]:
        """Pictures stay where they are; the captioner moves what it makes of them."""
        return batch

    def predict_step(self, batch: list[Item], batch_idx: int) -> int:
        """Take a batch; returns how many pictures it had.

        Raises:
            OutOfMemory: not even one picture fits.
        """
        with self._guard():
            self.describe(batch, last=batch_idx + 1 == self.trainer.num_predict_batches[0])
        return len(batch)

    def describe(self, items: Sequence[Item], *, last: bool) -> None:
        """Take pictures, and work until all are under way, or, with `last`, done."""
        if unreadable := [Result(item.picture, reason=item.reason) for item in items if item.image is None]:
            self._land(unreadable)
        self._ask([item for item in items if item.image is not None])
        while self._waiting or (last and self._asked):
            while self._waiting and self._stream.free:
                key = self._waiting.pop(0)
                self._stream.put(key, self._asked[key].request)
            if last or not self._stream.free:
                self._work()

    def _ask(self, items: Sequence[Item]) -> None:
        for item, tags in zip(items, self._tags(items), strict=True):
            assert item.image is not None
            requests = self._plan.requests(item.picture, item.image, tags)
            case = _Case(item.picture, [None] * len(requests))
            for place, request in enumerate(requests):
                self._wait(_Question(case, place, request))

    def _tags(self, items: Sequence[Item]) -> list[str]:
        if self._tools.tagger is None or not items:
            return [""] * len(items)
        looks = [Request(item.image, "") for item in items if item.image]
        return [answer.text for answer in self._tools.tagger.describe(looks)]

    def _wait(self, question: _Question) -> None:
        key = next(self._keys)
        self._asked[key] = question
        self._waiting.append(key)

    def _work(self) -> None:
        """Let the stream answer something; where it does not fit, put everything into one of half the size."""
        try:
            told = self._stream.step()
        except torch.OutOfMemoryError as error:
            if self.size == 1:
                raise OutOfMemory(
                    "the captioner does not fit into memory with one picture",
                    "Lower caption.max_tokens, set caption.quantize=nf4, or stop what else uses the GPU.",
                ) from error
            told = None
        if told is None:  # outside of the handler, where the error no longer holds the tensors that did not fit
            self._halve()
            return
        heard = [self._hear(self._asked.pop(each.key), each.answer) for each in told]
        if results := [result for result in heard if result]:
            self._land(results)

    def _halve(self) -> None:
        unanswered = self._stream.keys
        self._stream.close()
        del self._stream
        torch.cuda.empty_cache()
        log.warning("out of memory with %d pictures at once; going on with %d", self.size, self.size // 2)
        self.size //= 2
        self._stream = open_stream(self._tools.captioner, self.size)
        self._waiting = unanswered + self._waiting

    def _hear(self, question: _Question, answer: Answer) -> Result | None:
        """The result of a picture, once its last question is answered."""
        case = question.case
        if answer.end == "looped":
            if question.attempt < self._plan.rerolls:
                attempt = question.attempt + 1
                log.info("%s: its caption ran in circles; re-roll %d", case.picture.name, attempt)
                again = self._plan.again(question.request, attempt)
                self._wait(_Question(case, question.place, again, attempt))
                return None
            case.reason = LOOPED
        case.reason = answer.refusal or case.reason
        case.texts[question.place] = tidy(answer)
        texts = [text for text in case.texts if text is not None]
        if len(texts) < len(case.texts):
            return None
        reason = case.reason or ("" if all(texts) else NOTHING)
        return Result(case.picture, "" if reason else self._plan.caption(texts), reason)
