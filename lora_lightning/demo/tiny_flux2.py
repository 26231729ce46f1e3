"""FLUX.2 models of the real classes with random weights, as small as their hidden layers' numbers allow."""

from pathlib import Path

import torch
from diffusers import (
    AutoencoderKLFlux2,
    FlowMatchEulerDiscreteScheduler,
    Flux2KleinPipeline,
    Flux2Pipeline,
    Flux2Transformer2DModel,
)
from tokenizers import Tokenizer, decoders
from tokenizers import models as tokenizer_models
from tokenizers.pre_tokenizers import ByteLevel
from transformers import (
    Mistral3Config,
    Mistral3ForConditionalGeneration,
    MistralConfig,
    PixtralVisionConfig,
    PreTrainedTokenizerFast,
    Qwen2TokenizerFast,
    Qwen3Config,
    Qwen3ForCausalLM,
)

MAX_SEQUENCE_LENGTH = 48
HIDDEN = 16

QWEN3_TEMPLATE = """\
{%- for message in messages %}{{- '<|im_start|>' + message['role'] + '\\n' + message['content'] + '<|im_end|>\\n' }}
{%- endfor %}
{%- if add_generation_prompt %}{{- '<|im_start|>assistant\\n' }}
{%- if enable_thinking is defined and enable_thinking is false %}{{- '<think>\\n\\n</think>\\n\\n' }}{%- endif %}
{%- endif %}"""

MISTRAL_TEMPLATE = """\
{{- bos_token }}
{%- for message in messages %}
{%- set text = message['content'][0]['text'] %}
{%- if message['role'] == 'system' %}{{- '[SYSTEM_PROMPT]' + text[:8] + '[/SYSTEM_PROMPT]' }}
{%- else %}{{- '[INST]' + text + '[/INST]' }}{%- endif %}
{%- endfor %}"""


def build_klein(folder: Path, *, seed: int = 0) -> Path:
    """Write a FLUX.2 klein base: Qwen3 of 28 layers, of which the 9th, 18th and 27th are read; no guidance input."""
    torch.manual_seed(seed)
    vocabulary = {character: index for index, character in enumerate(sorted(ByteLevel.alphabet()))}
    tokenizer = Qwen2TokenizerFast(
        vocab=vocabulary, merges=[], model_max_length=MAX_SEQUENCE_LENGTH, chat_template=QWEN3_TEMPLATE
    )
    encoder = Qwen3ForCausalLM(
        Qwen3Config(
            vocab_size=len(tokenizer),
            hidden_size=HIDDEN,
            intermediate_size=32,
            num_hidden_layers=28,
            num_attention_heads=2,
            num_key_value_heads=1,
            head_dim=8,
            max_position_embeddings=512,
            tie_word_embeddings=True,
            pad_token_id=tokenizer.pad_token_id,
        )
    )
    Flux2KleinPipeline(_scheduler(), _vae(), encoder, tokenizer, _transformer(guidance_embeds=False)).save_pretrained(
        folder
    )
    return folder


def build_flux2(folder: Path, *, seed: int = 0) -> Path:
    """Write a FLUX.2 dev: Mistral 3 of 30 layers, of which the 10th, 20th and 30th are read; a guidance input.

    Its tokenizer stands alone: the processor around it, for pictures, cannot be built without torchvision.
    """
    torch.manual_seed(seed)
    tokenizer = _mistral_tokenizer()
    text = MistralConfig(
        vocab_size=len(tokenizer),
        hidden_size=HIDDEN,
        intermediate_size=32,
        num_hidden_layers=30,
        num_attention_heads=2,
        num_key_value_heads=1,
        head_dim=8,
        max_position_embeddings=512,
    )
    vision = PixtralVisionConfig(
        hidden_size=16, intermediate_size=16, num_hidden_layers=1, num_attention_heads=2, image_size=32, patch_size=16
    )
    encoder = Mistral3ForConditionalGeneration(Mistral3Config(text_config=text, vision_config=vision))
    Flux2Pipeline(_scheduler(), _vae(), encoder, tokenizer, _transformer(guidance_embeds=True)).save_pretrained(folder)
    return folder


def _scheduler() -> FlowMatchEulerDiscreteScheduler:
    return FlowMatchEulerDiscreteScheduler(shift=3.0, use_dynamic_shifting=True)


def _vae() -> AutoencoderKLFlux2:
    vae = AutoencoderKLFlux2(
        block_out_channels=(8, 8, 8, 8), layers_per_block=1, latent_channels=32, norm_num_groups=8, sample_size=64
    )
    vae.bn.running_mean.normal_(std=0.5)
    vae.bn.running_var.uniform_(0.5, 2.0)
    return vae


def _transformer(*, guidance_embeds: bool) -> Flux2Transformer2DModel:
    return Flux2Transformer2DModel(
        in_channels=128,
        num_layers=2,
        num_single_layers=2,
        attention_head_dim=16,
        num_attention_heads=2,
        joint_attention_dim=3 * HIDDEN,
        timestep_guidance_channels=32,
        axes_dims_rope=(4, 4, 4, 4),
        guidance_embeds=guidance_embeds,
    )


def _mistral_tokenizer() -> PreTrainedTokenizerFast:
    alphabet = {character: index for index, character in enumerate(sorted(ByteLevel.alphabet()))}
    tokenizer = Tokenizer(tokenizer_models.BPE(vocab=alphabet, merges=[]))
    tokenizer.pre_tokenizer = ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    marks = ("[IMG]", "[IMG_BREAK]", "[IMG_END]", "[SYSTEM_PROMPT]", "[/SYSTEM_PROMPT]", "[INST]", "[/INST]")
    made = PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        bos_token="<s>",
        eos_token="</s>",
        pad_token="<pad>",
        padding_side="left",
        model_max_length=MAX_SEQUENCE_LENGTH,
        chat_template=MISTRAL_TEMPLATE,
    )
    made.add_special_tokens({"additional_special_tokens": list(marks)})
    return made
