"""Functions as a user would write them, here so that two processes can import the same ones."""

from __future__ import annotations

import functools
from pathlib import Path
from typing import Any

from cachekit_adapters import vectors, vision

CALLS: list[Any] = []
"""What reached a model in this process."""


@functools.cache
def _bert(directory: str) -> tuple[Any, Any]:
    from transformers import AutoTokenizer, BertModel

    return AutoTokenizer.from_pretrained(directory), BertModel.from_pretrained(directory).eval()


def embedding(directory: Path) -> Any:
    """An embedding function of the BERT in `directory`: mean of the last layer."""

    @vectors.embed(model=directory)
    def embed(texts: list[str], *, normalise: bool = False) -> Any:
        import torch

        CALLS.append(list(texts))
        tokenizer, model = _bert(str(directory))
        with torch.no_grad():
            rows = [model(**tokenizer(text, return_tensors="pt")).last_hidden_state.mean(1)[0] for text in texts]
        found = torch.stack(rows)
        return torch.nn.functional.normalize(found) if normalise else found

    return embed


def detecting(directory: Path, revision: str = "1") -> Any:
    """A detection function of the Detr in `directory`."""

    @vision.cached("image", model="tiny-detr", revision=revision)
    def detect(image: Any, *, threshold: float = 0.2) -> list[dict[str, Any]]:
        import torch
        from transformers import DetrForObjectDetection

        CALLS.append(threshold)
        model = DetrForObjectDetection.from_pretrained(directory).eval()
        with torch.no_grad():
            said = model(_tensor(image))
        scores, labels = said.logits.softmax(-1)[0, :, :-1].max(-1)
        kept = scores > threshold
        found = zip(scores[kept].tolist(), labels[kept].tolist(), said.pred_boxes[0][kept].tolist(), strict=True)
        return [{"score": score, "label": label, "box": box} for score, label, box in found]

    return detect


def describing(directory: Path, revision: str = "1") -> Any:
    """A captioning function of the LlavaNext in `directory`."""

    @vision.cached("images", model="tiny-llava", revision=revision)
    def describe(prompt: list[int], images: list[Any], *, max_new_tokens: int = 4) -> list[int]:
        import torch
        from transformers import LlavaNextForConditionalGeneration

        CALLS.append(max_new_tokens)
        model = LlavaNextForConditionalGeneration.from_pretrained(directory).eval()
        pixels = torch.nn.functional.interpolate(torch.cat([_tensor(image) for image in images]), (32, 32))
        # The whole image and one tile of it: what the processor makes of a picture of the model's own size.
        seen = {"pixel_values": torch.stack([pixels, pixels], 1), "image_sizes": torch.tensor([[32, 32]] * len(images))}
        with torch.no_grad():
            features = model.get_image_features(**seen)
            count = sum(len(each) for each in getattr(features, "pooler_output", features))
            tokens = torch.tensor([[1, *[model.config.image_token_id] * count, *prompt]])
            out = model.generate(
                input_ids=tokens, attention_mask=torch.ones_like(tokens), **seen, do_sample=False,
                max_new_tokens=max_new_tokens, pad_token_id=0,
            )  # fmt: skip
        return out[0].tolist()

    return describe


def _tensor(image: Any) -> Any:
    import numpy as np
    import torch
    from PIL import Image

    opened = image if not isinstance(image, (str, Path)) else Image.open(image)
    return torch.from_numpy(np.asarray(opened).astype("float32") / 255).permute(2, 0, 1)[None]
