"""FLUX.2: dev (Mistral reads the text) and klein base 4B and 9B (Qwen3 does).

Shapes: B batch, C latent channels (32), H W latent rows and columns (pixels / 8), L tokens, D features (4 C).
Source: black-forest-labs/flux2, src/flux2/{model,sampling,text_encoder}.py; diffusers, pipelines/flux2.
"""

import json
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from diffusers import (
    AutoencoderKLFlux2,
    FlowMatchEulerDiscreteScheduler,
    Flux2KleinPipeline,
    Flux2Pipeline,
    Flux2Transformer2DModel,
    ModelMixin,
)
from torch import Tensor
from transformers import AutoTokenizer, Mistral3ForConditionalGeneration, Qwen3ForCausalLM

from lora_lightning.models import bfl, flow
from lora_lightning.models.base import Encoder, Posterior, TextEmbedding
from lora_lightning.models.parts import Parts
from lora_lightning.models.source import Source

PIPELINES = ("Flux2Pipeline", "Flux2KleinPipeline")
TRAINING_GUIDANCE = 1.0
"""dev is guidance-distilled; any other value would train another slice of it."""
MOST_TOKENS = 512
REFERENCE = 10
"""The first position of a reference picture's tokens; a second one would have 20."""

_DOUBLE, _SINGLE = r"transformer_blocks\.\d+\.", r"single_transformer_blocks\.\d+\."
_ATTENTION = r"attn\.(?:to_q|to_k|to_v|to_out\.0|add_q_proj|add_k_proj|add_v_proj|to_add_out)"
_FUSED = r"attn\.(?:to_qkv_mlp_proj|to_out)"  # a single block's attention and feed-forward are one pair of linears
_FEED_FORWARD = r"ff(?:_context)?\.linear_(?:in|out)"
_MODULATION = r"(?:double_stream_modulation_(?:img|txt)|single_stream_modulation)\.linear"


def open_source(source: Source, *, device: torch.device, dtype: torch.dtype) -> "Flux2":
    """The model that lies there."""
    return Flux2(source, device, dtype)


class GuidedKlein(Flux2KleinPipeline):  # type: ignore[misc]
    """diffusers' pipeline, with the embedding of the empty text that its classifier-free guidance asks for."""

    empty_BLD: Tensor

    def __call__(self, **options: Any) -> Any:
        """Draw, with the options of the stock pipeline."""
        empty_BLD = self.empty_BLD.to(self.transformer.device)
        return super().__call__(negative_prompt_embeds=empty_BLD, **options)


class Flux2:
    """A FLUX.2 model; see `base.Family` for the contract.

    Latents are normalised as the transformer expects, but keep the VAE's own shape: 2 x 2 of them make a token, in
    the same order as FLUX.1's.
    """

    layout = bfl.FLUX2
    bfl_files = True
    edits = True
    kinds = ("lora",)
    lora_targets = {  # noqa: RUF012 - a constant
        "attention": rf"{_DOUBLE}{_ATTENTION}|{_SINGLE}{_FUSED}",
        "all": rf"{_DOUBLE}(?:{_ATTENTION}|{_FEED_FORWARD})|{_SINGLE}{_FUSED}",
        "modulation": rf"{_DOUBLE}(?:{_ATTENTION}|{_FEED_FORWARD})|{_SINGLE}{_FUSED}|{_MODULATION}",
    }

    def __init__(self, source: Source, device: torch.device, dtype: torch.dtype) -> None:
        self.source, self.device, self.dtype = source, device, dtype
        self.parts = Parts(source, device)
        config = json.loads((source.part("transformer") / "config.json").read_text(encoding="utf-8"))
        self.guided = bool(config.get("guidance_embeds", True))
        self.klein = source.pipeline == "Flux2KleinPipeline"
        self.architecture = "flux-2-klein" if self.klein else "flux-2-dev"
        self.needs_empty_text = self.klein and not self._distilled().get("is_distilled")
        self._reader = Qwen3ForCausalLM if self.klein else Mistral3ForConditionalGeneration
        self._stock = Flux2KleinPipeline if self.klein else Flux2Pipeline
        texts = source.depends_on("text_encoder", "tokenizer")
        self.text_encoder = Encoder(texts, f"{source.pipeline}, at most {MOST_TOKENS} tokens, {dtype}")
        self.image_encoder = Encoder(source.depends_on("vae"), "float32")
        self.empty_text: TextEmbedding | None = None

    @torch.no_grad()
    def encode_text(self, texts: Sequence[str]) -> TextEmbedding:
        """Three hidden layers of the language model side by side, by the stock pipeline's own `encode_prompt`."""
        if self.needs_empty_text and self.empty_text is None:
            self.empty_text = self._encode([""])
        return self._encode(texts)

    @torch.no_grad()
    def encode_image(self, pixels_BCHW: Tensor) -> Posterior:
        """Mean and deviation, normalised by the VAE's batch statistics of 2 x 2 latents, in fp32."""
        vae = self.parts.model("vae", AutoencoderKLFlux2, torch.float32)
        posterior = vae.encode(pixels_BCHW.to(self.device, torch.float32)).latent_dist
        h, w = posterior.mean.shape[2:]
        deviation_D = (vae.bn.running_var + vae.config.batch_norm_eps).sqrt()
        mean_BLD = (flow.pack(posterior.mean) - vae.bn.running_mean) / deviation_D
        std_BLD = flow.pack(posterior.std) / deviation_D
        return Posterior(flow.unpack(mean_BLD, h, w), flow.unpack(std_BLD, h, w))

    def load_transformer(self, quantize: str = "none") -> ModelMixin:
        """The frozen transformer on the device."""
        return self.parts.transformer(Flux2Transformer2DModel, self.dtype, self.layout, quantize)

    def velocity(
        self,
        transformer: ModelMixin,
        x_BCHW: Tensor,
        sigma_B: Tensor,
        text: TextEmbedding,
        reference_BCHW: Tensor | None = None,
    ) -> Tensor:
        """Pack, ask the transformer, unpack. `sigma_B` goes in as it is: the transformer itself multiplies by 1000."""
        b, _, h, w = x_BCHW.shape
        tokens_BLD, ids_L4 = flow.pack(x_BCHW), _image_ids(h, w, 0)
        if reference_BCHW is not None:
            tokens_BLD = torch.cat((tokens_BLD, flow.pack(reference_BCHW)), dim=1)
            ids_L4 = torch.cat((ids_L4, _image_ids(reference_BCHW.shape[2], reference_BCHW.shape[3], REFERENCE)))
        with _exact_time(transformer, sigma_B):
            z_BLD = transformer(
                hidden_states=tokens_BLD.to(self.dtype),
                timestep=sigma_B,
                guidance=sigma_B.new_full((b,), TRAINING_GUIDANCE) if self.guided else None,
                encoder_hidden_states=text.sequence_BLD,
                txt_ids=_text_ids(text.sequence_BLD.shape[1]).to(self.device),
                img_ids=ids_L4.to(self.device),
                return_dict=False,
            )[0]
        return flow.unpack(z_BLD[:, : h * w // 4], h, w)

    def pipeline(self, transformer: ModelMixin) -> Flux2Pipeline | Flux2KleinPipeline:
        """The pipeline of diffusers as it is; prompts are given to it as embeddings."""
        kind = GuidedKlein if self.needs_empty_text else self._stock
        pipeline = kind(
            scheduler=FlowMatchEulerDiscreteScheduler.from_pretrained(self.source.part("scheduler")),
            vae=self.parts.model("vae", AutoencoderKLFlux2, self.dtype),
            text_encoder=None,
            tokenizer=None,
            transformer=transformer,
            **self._distilled(),
        )
        pipeline.set_progress_bar_config(disable=True)
        if self.needs_empty_text:
            if self.empty_text is None:
                self.empty_text = self.encode_text([""])
                self.parts.kept.pop(f"text_encoder {self.dtype}")
            pipeline.empty_BLD = self.empty_text.sequence_BLD
        return pipeline

    def release(self) -> None:
        """Let go of encoders and VAE, and give their memory back."""
        self.parts.release()

    def _encode(self, texts: Sequence[str]) -> TextEmbedding:
        """By the tokenizer alone: the processor around dev's is for pictures, and needs torchvision."""
        tokenizer = self.parts.other("tokenizer", AutoTokenizer)
        encoder = self.parts.model("text_encoder", self._reader, self.dtype)
        pipeline = self._stock(None, None, encoder, tokenizer, None)
        length = min(MOST_TOKENS, tokenizer.model_max_length)
        sequence_BLD: Tensor = pipeline.encode_prompt(list(texts), device=self.device, max_sequence_length=length)[0]
        return TextEmbedding(sequence_BLD, sequence_BLD.new_zeros(len(texts), 0))

    def _distilled(self) -> dict[str, bool]:
        if not self.klein:
            return {}
        index = json.loads((self.source.folder / "model_index.json").read_text(encoding="utf-8"))
        return {"is_distilled": bool(index.get("is_distilled", False))}


def _image_ids(height: int, width: int, picture: int) -> Tensor:
    """Positions (picture, row, column, 0); picture 0 is the one that is drawn. Shape (L, 4)."""
    axes = (torch.tensor([picture]), torch.arange(height // 2), torch.arange(width // 2), torch.arange(1))
    return torch.cartesian_prod(*axes)


def _text_ids(length: int) -> Tensor:
    """Positions (0, 0, 0, place). Shape (L, 4)."""
    return torch.stack([torch.zeros(length, dtype=torch.long)] * 3 + [torch.arange(length)], dim=-1)


@contextmanager
def _exact_time(transformer: ModelMixin, sigma_B: Tensor) -> Iterator[None]:
    """Let the time embedding see sigma in fp32, which diffusers rounds to the activations' dtype first.

    The sinusoids of the time are asked for before those of the guidance, and by the same module.
    """
    embed = transformer.get_submodule("time_guidance_embed")
    once = iter((sigma_B.float() * 1000,))
    handle = embed.get_submodule("time_proj").register_forward_pre_hook(
        lambda _, arguments: (next(once, arguments[0]), *arguments[1:])
    )
    try:
        yield
    finally:
        handle.remove()
