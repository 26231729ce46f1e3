"""The architectures, as configurations of diffusers' and transformers' own classes. Sizes are in ../README.md."""

from __future__ import annotations

from pathlib import Path

from diffusers import AutoencoderKL, FlowMatchEulerDiscreteScheduler, FluxTransformer2DModel
from transformers import (
    CLIPConfig,
    CLIPModel,
    CLIPTextConfig,
    CLIPTextModel,
    CLIPTokenizer,
    LlamaConfig,
    LlavaConfig,
    LlavaForConditionalGeneration,
    PreTrainedTokenizerFast,
    SiglipVisionConfig,
    T5Config,
    T5EncoderModel,
    T5Tokenizer,
)

from ..world.scene import CANVAS
from ..world.tokens import IMAGE, MAX_LENGTH

PATCH = 16
IMAGE_TOKENS = (CANVAS // PATCH) ** 2
STYLE_LAYER = 2  # encoder-mini: mean patch token of this hidden state knows the style best (it is trained to)


class Tokenizers:
    """The three tokenizers of a build folder, opened the way the product opens them."""

    def __init__(self, folder: Path) -> None:
        self.t5 = T5Tokenizer.from_pretrained(folder / "tokenizers/t5")
        self.clip = CLIPTokenizer.from_pretrained(folder / "tokenizers/clip")
        self.chat = PreTrainedTokenizerFast.from_pretrained(folder / "tokenizers/chat")


def autoencoder() -> AutoencoderKL:
    """f8, 16 channels, as FLUX.1's; scaling and shift are measured after training."""
    return AutoencoderKL(
        down_block_types=("DownEncoderBlock2D",) * 4,
        up_block_types=("UpDecoderBlock2D",) * 4,
        block_out_channels=(32, 48, 72, 96),
        layers_per_block=1,
        latent_channels=16,
        norm_num_groups=8,
        sample_size=CANVAS,
        use_quant_conv=False,
        use_post_quant_conv=False,
        scaling_factor=1.0,
        shift_factor=0.0,
    )


def transformer() -> FluxTransformer2DModel:
    """2 double and 6 single blocks of width 256, guidance embeds, 11.2 M parameters."""
    return FluxTransformer2DModel(
        patch_size=1,
        in_channels=64,
        num_layers=2,
        num_single_layers=6,
        attention_head_dim=32,
        num_attention_heads=8,
        joint_attention_dim=256,
        pooled_projection_dim=128,
        guidance_embeds=True,
        axes_dims_rope=(8, 12, 12),
    )


def t5_encoder(tokenizer: T5Tokenizer) -> T5EncoderModel:
    """Width 256, 2 layers, 1.5 M parameters."""
    return T5EncoderModel(
        T5Config(
            vocab_size=len(tokenizer),
            d_model=256,
            d_kv=32,
            d_ff=512,
            num_layers=2,
            num_heads=8,
            dropout_rate=0.0,
            feed_forward_proj="gated-gelu",
            is_encoder_decoder=False,
            use_cache=False,
            tie_word_embeddings=False,
            pad_token_id=0,
            eos_token_id=1,
            decoder_start_token_id=0,
        )
    )


def _clip_ids(tokenizer: CLIPTokenizer) -> dict[str, int]:
    return {
        "vocab_size": len(tokenizer),
        "bos_token_id": tokenizer.bos_token_id,
        "eos_token_id": tokenizer.eos_token_id,
        "pad_token_id": tokenizer.pad_token_id,
        "max_position_embeddings": MAX_LENGTH,
    }


def clip_text(tokenizer: CLIPTokenizer) -> CLIPTextModel:
    """Width 128, 2 layers, 0.5 M parameters; its pooled output feeds the transformer."""
    return CLIPTextModel(
        CLIPTextConfig(
            hidden_size=128,
            intermediate_size=256,
            num_hidden_layers=2,
            num_attention_heads=4,
            projection_dim=128,
            **_clip_ids(tokenizer),
        )
    )


def scheduler() -> FlowMatchEulerDiscreteScheduler:
    """FLUX.1-dev's own: at 64 image tokens its dynamic shift is exp(0.4675) = 1.6."""
    return FlowMatchEulerDiscreteScheduler(
        shift=3.0,
        use_dynamic_shifting=True,
        base_shift=0.5,
        max_shift=1.15,
        base_image_seq_len=256,
        max_image_seq_len=4096,
    )


def encoder(tokenizer: CLIPTokenizer) -> CLIPModel:
    """encoder-mini: vision 144 x 5 (patch 16 at 128 px), text 128 x 2, joint space 128."""
    text = {
        "hidden_size": 128,
        "intermediate_size": 256,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        **_clip_ids(tokenizer),
    }
    vision = {
        "hidden_size": 144,
        "intermediate_size": 432,
        "num_hidden_layers": 5,
        "num_attention_heads": 6,
        "image_size": CANVAS,
        "patch_size": PATCH,
    }
    model = CLIPModel(CLIPConfig(text_config=text, vision_config=vision, projection_dim=128))
    model.config.style_layer = STYLE_LAYER
    return model


def captioner(tokenizer: PreTrainedTokenizerFast) -> LlavaForConditionalGeneration:
    """captioner-mini: SigLIP 160 x 5 whose last but one layer feeds a Llama 160 x 3, as JoyCaption is wired."""
    vision = SiglipVisionConfig(
        hidden_size=160,
        intermediate_size=480,
        num_hidden_layers=5,
        num_attention_heads=5,
        image_size=CANVAS,
        patch_size=PATCH,
        vision_use_head=False,
    )
    text = LlamaConfig(
        vocab_size=len(tokenizer),
        hidden_size=160,
        intermediate_size=384,
        num_hidden_layers=3,
        num_attention_heads=5,
        num_key_value_heads=5,
        max_position_embeddings=512,
        tie_word_embeddings=True,
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
    )
    return LlavaForConditionalGeneration(
        LlavaConfig(
            vision_config=vision,
            text_config=text,
            vision_feature_layer=-2,
            vision_feature_select_strategy="full",
            image_token_index=tokenizer.convert_tokens_to_ids(IMAGE),
            image_seq_length=IMAGE_TOKENS,
            tie_word_embeddings=True,
        )
    )
