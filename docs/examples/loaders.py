"""Each loader and converter once cold and once warm, on random models of a few kilobytes: `python loaders.py [SCRIPTS]`.

SCRIPTS is a directory with llama.cpp's `convert_hf_to_gguf.py`; without it, or without a library, that part is left out.
"""

from __future__ import annotations

import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from cachekit import UsageError
from cachekit_adapters import (
    coreml_models,
    gguf,
    openvino_models,
    qualcomm_models,
    transformers_models,
    vectors,
    vision,
)

WORDS = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "a", "cat", "on", "the", "mat"]


def checkpoint(directory: Path) -> Path:
    """A random BERT with a tokenizer."""
    from transformers import BertConfig, BertModel

    sizes = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 1, "num_attention_heads": 2}
    BertModel(BertConfig(vocab_size=len(WORDS), **sizes)).save_pretrained(directory)
    (directory / "vocab.txt").write_text("\n".join(WORDS))
    return directory


def llama(directory: Path) -> Path:
    """A random Llama with a sentencepiece tokenizer, which llama.cpp reads."""
    import sentencepiece
    from transformers import LlamaConfig, LlamaForCausalLM

    sizes = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 1, "num_attention_heads": 2}
    LlamaForCausalLM(LlamaConfig(vocab_size=300, **sizes)).save_pretrained(directory)
    with (directory / "tokenizer.model").open("wb") as written:
        sentencepiece.SentencePieceTrainer.train(
            sentence_iterator=iter([" ".join(WORDS)]), model_writer=written, vocab_size=300, model_type="bpe",
            byte_fallback=True, hard_vocab_limit=False, minloglevel=2,
        )  # fmt: skip
    return directory


def network(file: Path) -> Path:
    """A random network as an exported program."""
    import torch

    torch.export.save(torch.export.export(torch.nn.Linear(4, 2).eval(), (torch.zeros(1, 4),)), file)
    return file


def sdk(file: Path) -> Path:
    """A stand-in for `snpe-onnx-to-dlc`, which comes with Qualcomm's SDK: it copies."""
    file.write_text(f"#!{sys.executable}\nimport shutil, sys\nshutil.copy(sys.argv[1], sys.argv[2])\n")
    file.chmod(0o755)
    return file


@vectors.embed(model="letters@1")
def embed(texts: list[str]) -> Any:
    import numpy as np

    return np.array([[text.count(letter) for letter in "aeiou"] for text in texts], np.float32)


@vision.cached("image", model="brightness", revision="1")
def bright(image: Any, *, threshold: float = 0.5) -> bool:
    return bool(image.mean() / 255 > threshold)


def parts(place: Path, scripts: Path | None) -> dict[str, Callable[[], Any]]:
    """What is shown, by name: each is called twice."""
    import numpy as np
    from transformers import AutoModel

    model, exported = checkpoint(place / "tiny-bert"), network(place / "net.pt2")
    convert, words = sdk(place / "snpe-onnx-to-dlc"), ["{model}", "{output}"]
    found: dict[str, Callable[[], Any]] = {
        "transformers": lambda: transformers_models.from_pretrained(AutoModel, model),
        "OpenVINO": lambda: openvino_models.convert(model, weight_format="fp16"),
        "Core ML": lambda: coreml_models.convert(exported, inputs={}, target="iOS17"),
        "Qualcomm (stand-in)": lambda: qualcomm_models.build([convert, *words], exported, soc="SM8650", sdk="none"),
        "vectors": lambda: embed(["a cat", "the mat"]),
        "vision": lambda: bright(np.full((8, 8, 3), 200, np.uint8)),
    }
    if scripts is not None:
        checkpoint_of_llama, script = llama(place / "tiny-llama"), scripts / "convert_hf_to_gguf.py"
        found["GGUF"] = lambda: gguf.convert(script, checkpoint_of_llama, outtype="f16")
    return found


def timed(call: Callable[[], Any]) -> tuple[float, Any]:
    start = time.perf_counter()
    value = call()
    return time.perf_counter() - start, value


def main(scripts: Path | None = None) -> None:
    with tempfile.TemporaryDirectory() as place:
        for name, call in parts(Path(place), scripts).items():
            try:
                (cold, _), (warm, value) = timed(call), timed(call)
            except UsageError as error:
                print(f"{name:<20} left out: {error}")
                continue
            print(f"{name:<20} cold {cold:8.3f} s   warm {warm:8.4f} s   {type(value).__name__}")


if __name__ == "__main__":
    main(*map(Path, sys.argv[1:2]))
