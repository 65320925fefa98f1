"""Checkpoints of a few kilobytes, with the architectures of the real ones and random weights from a fixed seed."""

from __future__ import annotations

import io
import json
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

WORDS = "the cat sat on a mat and what was computed once is had everywhere by all who ask for the same thing again"
VOCABULARY = 300


def _text(**more: Any) -> dict[str, Any]:
    return {"vocab_size": VOCABULARY, "hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 1,
            "num_attention_heads": 2, "max_position_embeddings": 128, **more}  # fmt: skip


def llama(directory: Path) -> None:
    """A causal language model, with a sentencepiece tokenizer, which llama.cpp reads."""
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM

    torch.manual_seed(0)
    LlamaForCausalLM(LlamaConfig(**_text(num_key_value_heads=2))).save_pretrained(directory)
    (directory / "tokenizer.model").write_bytes(_sentencepiece())


def _sentencepiece() -> bytes:
    import sentencepiece

    written = io.BytesIO()
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter([WORDS] * 4), model_writer=written, vocab_size=VOCABULARY, model_type="bpe",
        byte_fallback=True, hard_vocab_limit=False, minloglevel=2,
    )  # fmt: skip
    return written.getvalue()


def lora(directory: Path, *, rank: int = 2) -> None:
    """A LoRA adapter for `llama`, as PEFT writes it."""
    import torch
    from safetensors.torch import save_file

    torch.manual_seed(1)
    directory.mkdir()
    stem = "base_model.model.model.layers.0.self_attn.q_proj"
    tensors = {f"{stem}.lora_A.weight": torch.randn(rank, 32), f"{stem}.lora_B.weight": torch.randn(32, rank)}
    save_file(tensors, directory / "adapter_model.safetensors")
    config = {
        "peft_type": "LORA",
        "r": rank,
        "lora_alpha": 4,
        "target_modules": ["q_proj"],
        "base_model_name_or_path": "",
    }
    (directory / "adapter_config.json").write_text(json.dumps(config))


def bert(directory: Path) -> None:
    """An encoder with a word-level tokenizer."""
    import torch
    from tokenizers import Tokenizer, models, pre_tokenizers
    from transformers import BertConfig, BertModel, PreTrainedTokenizerFast

    torch.manual_seed(0)
    BertModel(BertConfig(**_text())).save_pretrained(directory)
    words = {word: at for at, word in enumerate(dict.fromkeys(["[PAD]", "[UNK]", *WORDS.split()]))}
    tokenizer = Tokenizer(models.WordLevel(words, unk_token="[UNK]"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    PreTrainedTokenizerFast(tokenizer_object=tokenizer, pad_token="[PAD]", unk_token="[UNK]").save_pretrained(directory)


def detr(directory: Path) -> None:
    """An object detector with a ResNet of its own."""
    import torch
    from transformers import DetrConfig, DetrForObjectDetection, ResNetConfig

    torch.manual_seed(0)
    backbone = ResNetConfig(
        embedding_size=8, hidden_sizes=[8, 16], depths=[1, 1], layer_type="basic", out_features=["stage2"]
    )
    config = DetrConfig(
        use_timm_backbone=False, use_pretrained_backbone=False, backbone=None, backbone_config=backbone, d_model=32,
        encoder_layers=1, decoder_layers=1, encoder_attention_heads=2, decoder_attention_heads=2, encoder_ffn_dim=32,
        decoder_ffn_dim=32, num_queries=5,
    )  # fmt: skip
    DetrForObjectDetection(config).save_pretrained(directory)


def llava(directory: Path) -> None:
    """A language model that looks at images."""
    import torch
    from transformers import CLIPVisionConfig, LlamaConfig, LlavaNextConfig, LlavaNextForConditionalGeneration

    torch.manual_seed(0)
    vision = CLIPVisionConfig(
        hidden_size=32, intermediate_size=64, num_hidden_layers=2, num_attention_heads=2, image_size=32, patch_size=8
    )
    config = LlavaNextConfig(
        vision_config=vision, text_config=LlamaConfig(**_text(num_key_value_heads=2, max_position_embeddings=512)),
        image_token_index=VOCABULARY - 1, image_grid_pinpoints=[[32, 32], [64, 32]], vision_feature_layer=-1,
    )  # fmt: skip
    LlavaNextForConditionalGeneration(config).save_pretrained(directory)


MAKERS: dict[str, Callable[[Path], None]] = {"llama": llama, "bert": bert, "detr": detr, "llava": llava, "lora": lora}


def ggml(file: Path) -> None:
    """A llama in GGJT version 3, the last format before GGUF: one layer, 32 words, float32."""
    import numpy as np

    random, vocabulary, width, hidden = np.random.default_rng(0), 32, 32, 64
    shapes = {
        "tok_embeddings.weight": (vocabulary, width),
        "norm.weight": (width,),
        "output.weight": (vocabulary, width),
    }
    shapes |= {f"layers.0.attention.w{part}.weight": (width, width) for part in "qkvo"}
    shapes |= {"layers.0.attention_norm.weight": (width,), "layers.0.ffn_norm.weight": (width,)}
    shapes |= {f"layers.0.feed_forward.w{part}.weight": (hidden, width) for part in "13"}
    shapes |= {"layers.0.feed_forward.w2.weight": (width, hidden)}
    data = b"tjgg" + struct.pack("<8I", 3, vocabulary, width, 32, 2, 1, width // 2, 0)
    for at in range(vocabulary):
        word = f"w{at}".encode()
        data += struct.pack("<I", len(word)) + word + struct.pack("<f", -float(at))
    for name, shape in shapes.items():
        data += struct.pack(f"<3I{len(shape)}I", len(shape), len(name), 0, *reversed(shape)) + name.encode()
        data += b"\0" * (-len(data) % 32) + random.standard_normal(shape, np.float32).tobytes()
    file.write_bytes(data)
