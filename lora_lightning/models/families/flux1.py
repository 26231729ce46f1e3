"""FLUX.1: dev, Krea, Kontext, schnell, and fine-tunes of them.

Shapes: B batch, C latent channels (16), H W latent rows and columns (pixels / 8), L tokens, D features.
"""

import json
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import torch
from diffusers import (
    AutoencoderKL,
    FlowMatchEulerDiscreteScheduler,
    FluxKontextPipeline,
    FluxPipeline,
    FluxTransformer2DModel,
    ModelMixin,
)
from torch import Tensor
from transformers import CLIPTextModel, CLIPTokenizer, T5EncoderModel, T5TokenizerFast

from lora_lightning.models import bfl, flow
from lora_lightning.models.base import Encoder, Posterior, TextEmbedding
from lora_lightning.models.parts import Parts
from lora_lightning.models.source import Source

PIPELINES = {"FluxPipeline": FluxPipeline, "FluxKontextPipeline": FluxKontextPipeline}
TRAINING_GUIDANCE = 1.0
"""dev is guidance-distilled; any other value would train another slice of it."""

_BLOCK = r"(?:single_)?transformer_blocks\.\d+\."
_ATTENTION = r"attn\.(?:to_q|to_k|to_v|to_out\.0|add_q_proj|add_k_proj|add_v_proj|to_add_out)"
_FEED_FORWARD = r"ff(?:_context)?\.net\.(?:0\.proj|2)|proj_mlp|proj_out"
_MODULATION = r"norm(?:1|1_context)?\.linear"
_CONTENT_SHARE = 10 / 38
"""Of dev's single blocks: exchanging the prompt in 0 to 9 changes what is drawn, in 10 to 37 how, and in the double
blocks nothing (SplitFlux, CVPR 2026, section 3)."""


def open_source(source: Source, *, device: torch.device, dtype: torch.dtype) -> "Flux1":
    """The model that lies there."""
    return Flux1(source, device, dtype)


def _targets(single_blocks: int) -> dict[str, str]:
    """Every preset leaves out the embedders and the last layer."""
    content = round(single_blocks * _CONTENT_SHARE)
    numbers = [str(number) for number in range(single_blocks)]

    def singles(chosen: list[str]) -> str:
        return rf"single_transformer_blocks\.(?:{'|'.join(chosen)})\.(?:{_ATTENTION}|{_FEED_FORWARD})"

    return {
        "attention": rf"{_BLOCK}{_ATTENTION}",
        # Every linear that works on tokens. The modulation linears (norm*.linear) see one vector a picture: adapting
        # them adds a third to the file.
        "all": rf"{_BLOCK}(?:{_ATTENTION}|{_FEED_FORWARD})",
        "modulation": rf"{_BLOCK}(?:{_ATTENTION}|{_FEED_FORWARD}|{_MODULATION})",
        "content": singles(numbers[:content]),
        "style": singles(numbers[content:]),
    }


class Flux1:
    """A FLUX.1 model; see `base.Family` for the contract."""

    layout = bfl.FLUX1
    bfl_files = False
    kinds = ("lora", "dora", "lokr", "loha")
    needs_empty_text = False

    def __init__(self, source: Source, device: torch.device, dtype: torch.dtype) -> None:
        self.source, self.device, self.dtype = source, device, dtype
        self.parts = Parts(source, device)
        self.edits = PIPELINES[source.pipeline] is FluxKontextPipeline
        self.empty_text: TextEmbedding | None = None
        self._ids: dict[tuple[int, int, int], Tensor] = {}
        config = json.loads((source.part("transformer") / "config.json").read_text(encoding="utf-8"))
        self.guided = bool(config.get("guidance_embeds", False))
        self.architecture = "flux-1-dev" if self.guided else "flux-1-schnell"
        self.lora_targets = _targets(config.get("num_single_layers", 38))
        texts = source.depends_on("text_encoder", "text_encoder_2", "tokenizer", "tokenizer_2")
        self._most_tokens = 512 if self.guided else 256
        self.text_encoder = Encoder(texts, f"at most {self._most_tokens} T5 tokens, {dtype}")
        self.image_encoder = Encoder(source.depends_on("vae"), "float32")

    @torch.no_grad()
    def encode_text(self, texts: Sequence[str]) -> TextEmbedding:
        """CLIP's pooled output and T5's sequence, padded to the full length without a mask, as inference does."""
        clip_tokenizer = self.parts.other("tokenizer", CLIPTokenizer)
        t5_tokenizer = self.parts.other("tokenizer_2", T5TokenizerFast)
        clip = self.parts.model("text_encoder", CLIPTextModel, self.dtype)
        t5 = self.parts.model("text_encoder_2", T5EncoderModel, self.dtype)
        clip_ids = self._tokens(texts, clip_tokenizer, clip_tokenizer.model_max_length)
        t5_ids = self._tokens(texts, t5_tokenizer, min(self._most_tokens, t5_tokenizer.model_max_length))
        return TextEmbedding(t5(t5_ids)[0], clip(clip_ids).pooler_output.to(self.dtype))

    @torch.no_grad()
    def encode_image(self, pixels_BCHW: Tensor) -> Posterior:
        """The mean as (z_vae - shift_factor) * scaling_factor and the deviation to the same scale, in fp32."""
        vae = self.parts.model("vae", AutoencoderKL, torch.float32)
        posterior = vae.encode(pixels_BCHW.to(self.device, torch.float32)).latent_dist
        shift, scale = vae.config.shift_factor, vae.config.scaling_factor
        return Posterior((posterior.mean - shift) * scale, posterior.std * scale)

    def load_transformer(self, quantize: str = "none") -> ModelMixin:
        """The frozen transformer on the device."""
        return self.parts.transformer(FluxTransformer2DModel, self.dtype, self.layout, quantize)

    def velocity(
        self,
        transformer: ModelMixin,
        x_BCHW: Tensor,
        sigma_B: Tensor,
        text: TextEmbedding,
        reference_BCHW: Tensor | None = None,
    ) -> Tensor:
        """Pack, ask the transformer, unpack. `sigma_B` goes in as it is: the transformer itself multiplies by 1000.

        A reference is Kontext's: its tokens have the same rows and columns, and 1 for their first position.
        """
        b, _, h, w = x_BCHW.shape
        tokens_BLD, ids_LD = flow.pack(x_BCHW), self._image_ids(h, w, 0)
        if reference_BCHW is not None:
            tokens_BLD = torch.cat((tokens_BLD, flow.pack(reference_BCHW)), dim=1)
            ids_LD = torch.cat((ids_LD, self._image_ids(reference_BCHW.shape[2], reference_BCHW.shape[3], 1)))
        with _exact_time(transformer, sigma_B):
            z_BLD = transformer(
                hidden_states=tokens_BLD.to(self.dtype),
                timestep=sigma_B,
                guidance=sigma_B.new_full((b,), TRAINING_GUIDANCE) if self.guided else None,
                pooled_projections=text.pooled_BD,
                encoder_hidden_states=text.sequence_BLD,
                txt_ids=sigma_B.new_zeros(text.sequence_BLD.shape[1], 3),
                img_ids=ids_LD,
                return_dict=False,
            )[0]
        return flow.unpack(z_BLD[:, : h * w // 4], h, w)

    def pipeline(self, transformer: ModelMixin) -> FluxPipeline | FluxKontextPipeline:
        """The pipeline of diffusers as it is; prompts are given to it as embeddings."""
        pipeline = PIPELINES[self.source.pipeline](
            scheduler=FlowMatchEulerDiscreteScheduler.from_pretrained(self.source.part("scheduler")),
            vae=self.parts.model("vae", AutoencoderKL, self.dtype),
            text_encoder=None,
            tokenizer=None,
            text_encoder_2=None,
            tokenizer_2=None,
            transformer=transformer,
        )
        pipeline.set_progress_bar_config(disable=True)
        return pipeline

    def release(self) -> None:
        """Let go of encoders and VAE, and give their memory back."""
        self.parts.release()

    def _tokens(self, texts: Sequence[str], tokenizer: CLIPTokenizer | T5TokenizerFast, length: int) -> Tensor:
        tokens = tokenizer(list(texts), padding="max_length", max_length=length, truncation=True, return_tensors="pt")
        ids: Tensor = tokens.input_ids.to(self.device)
        return ids

    def _image_ids(self, height: int, width: int, picture: int) -> Tensor:
        """Positions (picture, row, column); picture 0 is the one that is drawn."""
        if (height, width, picture) not in self._ids:
            ids_LD = flow.image_ids(height, width).to(self.device)
            ids_LD[:, 0] = picture
            self._ids[height, width, picture] = ids_LD
        return self._ids[height, width, picture]


@contextmanager
def _exact_time(transformer: ModelMixin, sigma_B: Tensor) -> Iterator[None]:
    """Let the time embedding see sigma in fp32.

    diffusers casts it to the activations' dtype first; in bf16 that rounds 1000 sigma to multiples of 4 above 512,
    another sigma than the one that x_sigma was made with.
    """
    exact = sigma_B.float() * 1000
    embed = transformer.get_submodule("time_text_embed")
    handle = embed.register_forward_pre_hook(lambda _, arguments: (exact, *arguments[1:]))
    try:
        yield
    finally:
        handle.remove()
