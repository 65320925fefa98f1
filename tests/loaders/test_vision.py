"""Images are what they show; thresholds, prompts and revisions count beside them."""

from __future__ import annotations

import io
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import cachekit
from cachekit_adapters import vision
from loaders import subjects
from loaders.conftest import library

pytestmark = pytest.mark.loaders
np = pytest.importorskip("numpy")
Image = pytest.importorskip("PIL.Image")


@pytest.fixture(autouse=True)
def no_calls() -> None:
    subjects.CALLS.clear()


@pytest.fixture
def array() -> Any:
    return np.random.default_rng(0).integers(0, 255, (64, 48, 3), np.uint8)


def encoded(image: Any, kind: str = "PNG", **how: Any) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, kind, **how)
    return buffer.getvalue()


def test_equal_pixels_are_one_key(array: Any, tmp_path: Path) -> None:
    """As array, picture, file, path as text, bytes of one file or another one, with other metadata."""
    picture = Image.fromarray(array)
    file = tmp_path / "picture.png"
    file.write_bytes(encoded(picture))
    forms = [array, np.asfortranarray(array), picture, file, str(file), file.read_bytes(), encoded(picture, "BMP"),
             encoded(picture, compress_level=0), encoded(picture, "TIFF")]  # fmt: skip
    assert len({vision.pixels(form) for form in forms}) == 1


def test_a_palette_counts_as_its_colours() -> None:
    """The same few colours as a palette and as RGB are one picture."""
    few = Image.new("RGB", (4, 4), (255, 0, 0))
    few.putpixel((1, 2), (0, 0, 255))
    assert vision.pixels(encoded(few.quantize(4), "PNG")) == vision.pixels(few)


def test_other_pixels_are_other_keys(array: Any) -> None:
    """One pixel, another shape of the same bytes, another type, another meaning of the channels."""
    changed = array.copy()
    changed[0, 0, 0] ^= 1
    four = Image.fromarray(np.dstack([array, array[..., :1]]))
    cmyk = Image.frombytes("CMYK", four.size, four.tobytes())
    others = [changed, array.reshape(48, 64, 3), array.view(np.int8), array.astype("float32"), four, cmyk]
    assert len({vision.pixels(form) for form in [array, *others]}) == 7


def test_the_orientation_a_camera_asks_for_counts(array: Any) -> None:
    """Who reads the file may turn it, so it is not the picture that lies."""
    picture = Image.fromarray(array)
    exif = Image.Exif()
    exif[0x0112] = 6
    assert vision.pixels(encoded(picture, exif=exif)) != vision.pixels(picture)


def test_every_frame_of_an_animation_counts(array: Any) -> None:
    """Two animations that begin alike are two, and the picture stays at the frame where it was."""
    frames = [Image.fromarray(array[:8, :8]), Image.fromarray(array[8:16, 8:16]), Image.fromarray(array[16:24, :8])]
    one = encoded(frames[0], "TIFF", save_all=True, append_images=frames[1:2])
    two = encoded(frames[0], "TIFF", save_all=True, append_images=frames[2:])
    assert vision.pixels(one) != vision.pixels(two)


def test_a_url_is_no_image() -> None:
    """It is refused with the remedy, and nothing is fetched."""
    with pytest.raises(cachekit.UsageError, match="fetch it first"):
        vision.pixels("https://example.org/cat.png")


def test_detections_of_detr(tiny: Callable[[str], Path], tmp_path: Path, array: Any, again: Any) -> None:
    """Another form of the same pixels is a hit, in another process too; threshold and revision are part of the key."""
    library("torch")
    directory, file = tiny("detr"), tmp_path / "picture.png"
    file.write_bytes(encoded(Image.fromarray(array)))
    first = subjects.detecting(directory)(array, threshold=0.0)
    assert len(first) == 5
    code = """
    from loaders import subjects
    answer = [subjects.detecting(directory)(file, threshold=0.0), subjects.CALLS]
    """
    assert again(code, directory=directory, file=file) == [first, []]
    subjects.detecting(directory)(array, threshold=0.99)
    subjects.detecting(directory, revision="2")(array, threshold=0.0)
    assert subjects.CALLS == [0.0, 0.99, 0.0]


def test_generation_of_llava(tiny: Callable[[str], Path], tmp_path: Path, array: Any, again: Any) -> None:
    """Tokens generated from a list of images and a prompt come back; another image or prompt is another call."""
    library("torch")
    directory, file = tiny("llava"), tmp_path / "picture.png"
    file.write_bytes(encoded(Image.fromarray(array)))
    describe = subjects.describing(directory)
    first = describe([5, 6, 7], [array])
    code = """
    from loaders import subjects
    answer = [subjects.describing(directory)([5, 6, 7], [file]), subjects.CALLS]
    """
    assert again(code, directory=directory, file=file) == [first, []]
    describe([5, 6, 8], [array])
    describe([5, 6, 7], [array[::-1]])
    describe([5, 6, 7], [array], max_new_tokens=2)
    assert subjects.CALLS == [4, 4, 4, 2]
