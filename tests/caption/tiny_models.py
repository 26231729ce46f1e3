"""Tiny random models of the real classes, saved as their checkpoints are."""

import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from transformers import (
    Blip2Config,
    Blip2ForConditionalGeneration,
    CLIPImageProcessorPil,
    Florence2Config,
    Florence2ForConditionalGeneration,
    Florence2Processor,
    PreTrainedTokenizerFast,
    Qwen2_5_VLConfig,
    Qwen2_5_VLForConditionalGeneration,
    Qwen3VLConfig,
    Qwen3VLForConditionalGeneration,
)
from transformers.models.blip.image_processing_pil_blip import BlipImageProcessorPil
from transformers.models.qwen2_vl.image_processing_pil_qwen2_vl import Qwen2VLImageProcessorPil

QWEN_TEMPLATE = """\
{%- for message in messages %}{{- '<|im_start|>' + message['role'] + '\\n' }}
{%- for part in message['content'] %}
{{- '<|vision_start|><|image_pad|><|vision_end|>' if part['type'] == 'image' else part['text'] }}
{%- endfor %}{{- '<|im_end|>\\n' }}{%- endfor %}
{%- if add_generation_prompt %}{{- '<|im_start|>assistant\\n' }}{%- endif %}"""


def bytes_tokenizer(eos, bos=None, special=(), **more):
    """A tokenizer of bytes with some special tokens."""
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    tokenizer = Tokenizer(models.BPE(vocab={c: i for i, c in enumerate(alphabet)}, merges=[]))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        eos_token=eos,
        bos_token=bos,
        pad_token="<pad>",
        extra_special_tokens={f"special_{i}": token for i, token in enumerate(special)} | more,
    )


def qwen(folder, version):
    tokenizer = bytes_tokenizer("<|im_end|>", special=("<|im_start|>", "<|vision_start|>", "<|vision_end|>",
                                                       "<|image_pad|>", "<|video_pad|>"))  # fmt: skip
    tokenizer.chat_template = QWEN_TEMPLATE
    ids = {
        f"{name}_token_id": tokenizer.convert_tokens_to_ids(f"<|{token}|>")
        for name, token in (("image", "image_pad"), ("video", "video_pad"), ("vision_start", "vision_start"),
                            ("vision_end", "vision_end"))
    }  # fmt: skip
    text = {
        "vocab_size": len(tokenizer),
        "hidden_size": 32,
        "intermediate_size": 64,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "eos_token_id": tokenizer.eos_token_id,
        "pad_token_id": tokenizer.pad_token_id,
        "rope_parameters": {"rope_type": "default", "rope_theta": 10000.0, "mrope_section": [1, 1, 2]},
    }
    patch = {"2.5": 14, "3": 16}[version]
    vision = {"depth": 2, "hidden_size": 32, "intermediate_size": 64, "num_heads": 4, "out_hidden_size": 32,
              "patch_size": patch}  # fmt: skip
    torch.manual_seed(0)
    if version == "2.5":
        vision |= {"window_size": 56, "fullatt_block_indexes": [1]}
        model = Qwen2_5_VLForConditionalGeneration(Qwen2_5_VLConfig(text_config=text, vision_config=vision, **ids))
    else:
        vision |= {"num_position_embeddings": 64, "deepstack_visual_indexes": [0]}
        text["head_dim"] = 8
        model = Qwen3VLForConditionalGeneration(Qwen3VLConfig(text_config=text, vision_config=vision, **ids))
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    size = {"shortest_edge": 4 * patch * patch, "longest_edge": 64 * patch * patch}
    Qwen2VLImageProcessorPil(patch_size=patch, size=size).save_pretrained(folder)
    return folder


def florence(folder):
    tokenizer = bytes_tokenizer("</s>", "<s>", image_token="<image>")
    torch.manual_seed(0)
    ids = {"bos_token_id": tokenizer.bos_token_id, "eos_token_id": tokenizer.eos_token_id,
           "pad_token_id": tokenizer.pad_token_id}  # fmt: skip
    text = {"vocab_size": len(tokenizer), "d_model": 32, "encoder_layers": 1, "decoder_layers": 1,
            "encoder_attention_heads": 2, "decoder_attention_heads": 2, "encoder_ffn_dim": 64, "decoder_ffn_dim": 64,
            "max_position_embeddings": 512, "decoder_start_token_id": tokenizer.eos_token_id, **ids}  # fmt: skip
    vision = {"depths": [1, 1], "embed_dim": [16, 32], "num_heads": [2, 2], "num_groups": [2, 2], "window_size": 4,
              "patch_size": [7, 3], "patch_stride": [4, 2], "patch_padding": [3, 1], "patch_prenorm": [False, True],
              "projection_dim": 32, "drop_path_rate": 0.0}  # fmt: skip
    config = Florence2Config(
        text_config=text, vision_config=vision, image_token_id=tokenizer.convert_tokens_to_ids("<image>"), **ids
    )
    model = Florence2ForConditionalGeneration(config)
    model.generation_config.decoder_start_token_id = tokenizer.eos_token_id
    model.generation_config.num_beams = 3
    model.save_pretrained(folder)
    pictures = CLIPImageProcessorPil(size={"height": 64, "width": 64}, do_center_crop=False)
    pictures.image_seq_length = 8 * 8 + 1
    Florence2Processor(image_processor=pictures, tokenizer=tokenizer).save_pretrained(folder)
    return folder


def blip(folder):
    tokenizer = bytes_tokenizer("</s>", "<s>", special=("<image>",))
    torch.manual_seed(0)
    common = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4, "intermediate_size": 64}
    config = Blip2Config(
        vision_config=common | {"image_size": 56, "patch_size": 14},
        qformer_config=common | {"encoder_hidden_size": 32, "vocab_size": 8},
        text_config={
            "model_type": "opt", "vocab_size": len(tokenizer), "hidden_size": 32, "ffn_dim": 64, "num_hidden_layers": 2,
            "num_attention_heads": 4, "max_position_embeddings": 256, "word_embed_proj_dim": 32,
            "bos_token_id": tokenizer.bos_token_id, "eos_token_id": tokenizer.eos_token_id,
            "pad_token_id": tokenizer.pad_token_id,
        },
        num_query_tokens=4,
        image_token_index=tokenizer.convert_tokens_to_ids("<image>"),
    )  # fmt: skip
    Blip2ForConditionalGeneration(config).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    BlipImageProcessorPil(size={"height": 56, "width": 56}).save_pretrained(folder)
    return folder
