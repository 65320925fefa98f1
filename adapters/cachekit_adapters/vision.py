"""Images as what they show: answers of vision models, keyed by pixels and not by file, URL or object.

from cachekit_adapters import vision

@vision.cached("image", model="facebook/detr-resnet-50", revision="<commit>")
def detect(image, *, threshold: float = 0.9) -> list[dict]: ...
"""

from __future__ import annotations

import functools
import hashlib
import inspect
import io
import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Final

from cachekit import Cached, UsageError, distributed_cache
from cachekit_adapters._building import needed

# Modes whose pixels say by their shape and type alone what they mean; the others (CMYK, YCbCr, …) say it by name.
_EVIDENT: Final = frozenset({"1", "L", "RGB", "RGBA", "I;16", "I", "F"})
_ORIENTATION: Final = 0x0112


def pixels(image: Any) -> tuple[Any, ...]:
    """What identifies an image: shape, type and SHA-256 of its pixels, and what else changes how they are read.

    `image` is a PIL image, an array, a tensor, the path of a file (`str` or Path) or the bytes of one. Equal pixels are
    equal, whichever of these they come as: a PNG, the same picture as another PNG, and the array of it. A palette counts
    as its colours. The orientation that a camera's file asks for counts, and so does every frame of an animation.

    Raises UsageError for anything else, a URL among it: fetch it first, what it shows may change.
    """
    opened = _opened(image)
    if callable(getattr(opened, "detach", None)):
        opened = opened.detach().cpu().numpy()
    if isinstance(opened, needed("numpy").ndarray):
        return ("pixels", *_digest(opened))
    if callable(getattr(opened, "getexif", None)) and hasattr(opened, "mode"):
        return ("pixels", *_picture(opened))
    raise UsageError(f"an image is a PIL image, an array, a path or a file's bytes, not {type(image).__qualname__}")


def cached(*images: str, model: str | os.PathLike[str], revision: str | None = None, **keywords: Any) -> Any:
    """Decorates a function that looks at images: detections, captions, generated text.

    `images` name the arguments that hold them, one or a list or mapping of them; None is none. All other arguments
    (thresholds, prompts, the number of tokens) are part of the key as they are, and so are `model`, which is a name or a
    Path meaning its content, and `revision`. `keywords` are keywords of `distributed_cache`, with `key=` taken; `ignore`
    leaves arguments out; answers are kept for 24 h unless `ttl=` says otherwise, and not pinned.

    The function returns what `distributed_cache` can keep: lists and numbers (`tensor.tolist()`), text, an array.
    """
    if "key" in keywords or not images:
        raise UsageError('vision.cached("image", …) names the arguments that hold images; key= is taken')
    ignored = frozenset([keywords["ignore"]] if isinstance(keywords.get("ignore"), str) else keywords.get("ignore", ()))
    place = (Path(model) if isinstance(model, os.PathLike) else model, revision)

    def key(bound: Mapping[str, Any]) -> Any:
        arguments = {
            name: _nested(value) if name in images else value for name, value in bound.items() if name not in ignored
        }
        return (*place, arguments)

    return functools.partial(_decorated, images=images, keywords={"ttl": "24h", **keywords, "key": key})


def _decorated(
    function: Callable[..., Any], *, images: tuple[str, ...], keywords: Mapping[str, Any]
) -> Cached[..., Any]:
    unknown = sorted(set(images) - inspect.signature(function).parameters.keys())
    if unknown:
        raise UsageError(f"{function.__qualname__} has no argument {unknown[0]!r} that could hold images")
    decorated: Cached[..., Any] = distributed_cache(**keywords)(function)
    return decorated


def _nested(value: Any) -> Any:
    if value is None:
        return None
    if isinstance(value, (list, tuple)):
        return [_nested(item) for item in value]
    if isinstance(value, Mapping):
        return {name: _nested(item) for name, item in value.items()}
    return pixels(value)


def _opened(image: Any) -> Any:
    if isinstance(image, str) and "://" in image[:12]:
        raise UsageError(
            "an image is keyed by what it shows, and a URL may show something else tomorrow: fetch it first"
        )
    if isinstance(image, (bytes, bytearray, memoryview)):
        return needed("PIL.Image").open(io.BytesIO(image))
    return needed("PIL.Image").open(image) if isinstance(image, (str, os.PathLike)) else image


def _picture(image: Any) -> tuple[Any, ...]:
    """The pixels of each frame, in the image's own mode, and what its file says of how they stand."""
    frames = getattr(image, "n_frames", 1)
    digest = _frame(image) if frames == 1 else _frames(image, frames)
    orientation = image.getexif().get(_ORIENTATION, 1)
    return digest if orientation == 1 else (*digest, ("orientation", int(orientation)))


def _frames(image: Any, frames: int) -> tuple[Any, ...]:
    place = image.tell()
    try:
        digests = []
        for at in range(frames):
            image.seek(at)
            digests.append(_frame(image))
        return tuple(digests)
    finally:
        image.seek(place)


def _frame(image: Any) -> tuple[Any, ...]:
    if image.mode in ("P", "PA"):
        image = image.convert("RGBA" if "transparency" in image.info or image.mode == "PA" else "RGB")
    digest = _digest(needed("numpy").asarray(image))
    return digest if image.mode in _EVIDENT else (*digest, image.mode)


def _digest(array: Any) -> tuple[Any, ...]:
    flat = needed("numpy").ascontiguousarray(array)
    if flat.dtype.hasobject:
        raise UsageError("an array of objects is no image")
    return flat.dtype.str, tuple(flat.shape), hashlib.sha256(flat.tobytes()).hexdigest()
