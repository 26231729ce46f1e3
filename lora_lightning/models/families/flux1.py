"""FLUX.1 (dev, schnell and fine-tunes of them) in the diffusers layout.

Shapes: B batch, C latent channels (16), H W latent rows and columns (pixels / 8), L tokens, D features.
"""

import json
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeVar

import torch
from diffusers import AutoencoderKL, FlowMatchEulerDiscreteScheduler, FluxPipeline, FluxTransformer2DModel, ModelMixin
from torch import Tensor
from transformers import CLIPTextModel, CLIPTokenizer, T5EncoderModel, T5TokenizerFast

from lora_lightning import plugins
from lora_lightning.errors import ModelError
from lora_lightning.models import flow
from lora_lightning.models.base import Encoder, Posterior, TextEmbedding

Part = TypeVar("Part")

PIPELINES = ("FluxPipeline",)
TRAINING_GUIDANCE = 1.0
"""dev is guidance-distilled; any other value would train another slice of it."""

_BLOCK = r"(?:single_)?transformer_blocks\.\d+\."
_ATTENTION = r"attn\.(?:to_q|to_k|to_v|to_out\.0|add_q_proj|add_k_proj|add_v_proj|to_add_out)"
_FEED_FORWARD = r"ff(?:_context)?\.net\.(?:0\.proj|2)|proj_mlp|proj_out"


def open_folder(folder: Path, *, device: torch.device, dtype: torch.dtype) -> "Flux1":
    """The model of a complete folder."""
    return Flux1(folder, device, dtype)


class Flux1:
    """A FLUX.1 model; see `base.Family` for the contract."""

    lora_targets = {  # noqa: RUF012 - a constant
        "attention": rf"{_BLOCK}{_ATTENTION}",
        # Every linear that works on tokens. The modulation linears (norm*.linear) see one vector a picture: adapting
        # them adds a third to the file, and their halves lie swapped in BFL's layout.
        "all": rf"{_BLOCK}(?:{_ATTENTION}|{_FEED_FORWARD})",
    }

    def __init__(self, folder: Path, device: torch.device, dtype: torch.dtype) -> None:
        self.folder, self.device, self.dtype = folder, device, dtype
        self._parts: dict[str, Any] = {}
        self._ids: dict[tuple[int, int], Tensor] = {}
        config = json.loads((folder / "transformer" / "config.json").read_text(encoding="utf-8"))
        self.guided = bool(config.get("guidance_embeds", False))
        self.architecture = "flux-1-dev" if self.guided else "flux-1-schnell"
        parts = ("text_encoder", "text_encoder_2", "tokenizer", "tokenizer_2")
        length = 512 if self.guided else 256
        self.text_encoder = Encoder(tuple(folder / part for part in parts), f"at most {length} T5 tokens, {dtype}")
        self.image_encoder = Encoder((folder / "vae",), "float32")
        self._most_tokens = length

    @torch.no_grad()
    def encode_text(self, texts: Sequence[str]) -> TextEmbedding:
        """CLIP's pooled output and T5's sequence, padded to the full length without a mask, as inference does."""
        clip_tokenizer = self._tokenizer("tokenizer", CLIPTokenizer)
        t5_tokenizer = self._tokenizer("tokenizer_2", T5TokenizerFast)
        clip = self._model("text_encoder", CLIPTextModel, self.dtype)
        t5 = self._model("text_encoder_2", T5EncoderModel, self.dtype)
        clip_ids = self._ids_of(texts, clip_tokenizer, clip_tokenizer.model_max_length)
        t5_ids = self._ids_of(texts, t5_tokenizer, min(self._most_tokens, t5_tokenizer.model_max_length))
        return TextEmbedding(t5(t5_ids)[0], clip(clip_ids).pooler_output.to(self.dtype))

    @torch.no_grad()
    def encode_image(self, pixels_BCHW: Tensor) -> Posterior:
        """The mean as (z_vae - shift_factor) * scaling_factor and the deviation to the same scale, in fp32."""
        vae = self._model("vae", AutoencoderKL, torch.float32)
        posterior = vae.encode(pixels_BCHW.to(self.device, torch.float32)).latent_dist
        shift, scale = vae.config.shift_factor, vae.config.scaling_factor
        return Posterior((posterior.mean - shift) * scale, posterior.std * scale)

    def load_transformer(self, quantize: str = "none") -> ModelMixin:
        """The frozen transformer on the device."""
        transformer = self._load("transformer", FluxTransformer2DModel.from_pretrained, dtype=self.dtype)
        transformer.requires_grad_(False)
        if quantize != "none":
            plugin = plugins.load("models/quantize", quantize)
            for blocks in (transformer.transformer_blocks, transformer.single_transformer_blocks):
                plugin.quantize(blocks, self.device, self.dtype)
        return transformer.to(self.device)

    def velocity(self, transformer: ModelMixin, x_BCHW: Tensor, sigma_B: Tensor, text: TextEmbedding) -> Tensor:
        """Pack, ask the transformer, unpack. `sigma_B` goes in as it is: the transformer itself multiplies by 1000."""
        b, _, h, w = x_BCHW.shape
        with _exact_time(transformer, sigma_B):
            z_BLD = transformer(
                hidden_states=flow.pack(x_BCHW).to(self.dtype),
                timestep=sigma_B,
                guidance=sigma_B.new_full((b,), TRAINING_GUIDANCE) if self.guided else None,
                pooled_projections=text.pooled_BD,
                encoder_hidden_states=text.sequence_BLD,
                txt_ids=sigma_B.new_zeros(text.sequence_BLD.shape[1], 3),
                img_ids=self._image_ids(h, w),
                return_dict=False,
            )[0]
        return flow.unpack(z_BLD, h, w)

    def pipeline(self, transformer: ModelMixin) -> FluxPipeline:
        """The FluxPipeline of diffusers as it is; prompts are given to it as embeddings."""
        pipeline = FluxPipeline(
            scheduler=FlowMatchEulerDiscreteScheduler.from_pretrained(self.folder / "scheduler"),
            vae=self._model("vae", AutoencoderKL, self.dtype),
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
        self._parts.clear()
        if self.device.type == "cuda":
            torch.cuda.empty_cache()

    def _model(self, part: str, kind: Any, dtype: torch.dtype) -> Any:
        key = f"{part} {dtype}"
        if key not in self._parts:
            model = self._load(part, kind.from_pretrained, dtype=dtype)
            self._parts[key] = model.to(self.device).eval().requires_grad_(False)
        return self._parts[key]

    def _tokenizer(self, part: str, kind: Any) -> Any:
        if part not in self._parts:
            self._parts[part] = self._load(part, kind.from_pretrained)
        return self._parts[part]

    def _load(self, part: str, load: Callable[..., Part], **options: Any) -> Part:
        try:
            return load(self.folder / part, local_files_only=True, **options)
        except Exception as error:
            if "out of memory" in str(error).lower() or isinstance(error, MemoryError):
                raise
            raise ModelError(
                f"{part} of {self.folder} cannot be read: {str(error).splitlines()[0] if str(error) else error!r}",
                "The file may be damaged; download the model again.",
            ) from error

    def _ids_of(self, texts: Sequence[str], tokenizer: Any, length: int) -> Tensor:
        tokens = tokenizer(list(texts), padding="max_length", max_length=length, truncation=True, return_tensors="pt")
        ids: Tensor = tokens.input_ids.to(self.device)
        return ids

    def _image_ids(self, height: int, width: int) -> Tensor:
        if (height, width) not in self._ids:
            self._ids[height, width] = flow.image_ids(height, width).to(self.device)
        return self._ids[height, width]


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
