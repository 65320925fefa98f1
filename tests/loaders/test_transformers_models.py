"""Objects of transformers out of persisted directories: equal, weights bit for bit."""

from __future__ import annotations

import hashlib
import importlib
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import cachekit
from cachekit_adapters import _building, transformers_models
from loaders.conftest import library

pytestmark = [pytest.mark.loaders, pytest.mark.timeout(300)]

CLASSES = {
    "llama": "AutoModelForCausalLM",
    "bert": "AutoModel",
    "detr": "AutoModelForObjectDetection",
    "llava": "LlavaNextForConditionalGeneration",
}


def digest(model: Any) -> str:
    """Names, types, shapes and bits of all weights."""
    state = hashlib.sha256()
    for name, tensor in sorted(model.state_dict().items()):
        said = f"{name} {tensor.dtype} {tuple(tensor.shape)}".encode()
        state.update(said + tensor.contiguous().view(-1).numpy().tobytes())
    return state.hexdigest()


@pytest.mark.parametrize("name", CLASSES)
def test_weights_come_back_bit_for_bit(name: str, tiny: Callable[[str], Path], again: Any) -> None:
    """In another process, which may not load the original; class, configuration and name are those of the original."""
    transformers, directory = library("transformers"), tiny(name)
    cls = getattr(transformers, CLASSES[name])
    plain = cls.from_pretrained(directory)
    first = transformers_models.from_pretrained(cls, directory)
    assert (type(first), digest(first)) == (type(plain), digest(plain))
    code = """
    import transformers
    from cachekit_adapters import transformers_models
    from loaders.test_transformers_models import digest
    model = transformers_models.from_pretrained(getattr(transformers, cls), directory)
    answer = [type(model).__name__, digest(model), model.config.to_dict(), model.name_or_path]
    """
    kind, weights, config, told = again(code, cls=CLASSES[name], directory=directory)
    assert (kind, weights, told) == (type(plain).__name__, digest(plain), str(directory))
    known = _building.spoken(plain.config.to_dict())
    assert {key: config[key] for key in ("model_type", "architectures")} == {
        key: known[key] for key in ("model_type", "architectures")
    }


def test_a_tokenizer_is_persisted_too(tiny: Callable[[str], Path], again: Any) -> None:
    """Anything with from_pretrained and save_pretrained."""
    transformers, directory = library("transformers"), tiny("bert")
    first = transformers_models.from_pretrained(transformers.AutoTokenizer, directory)
    code = """
    import transformers
    from cachekit_adapters import transformers_models
    tokenizer = transformers_models.from_pretrained(transformers.AutoTokenizer, directory)
    answer = tokenizer("the cat had a dog")["input_ids"]
    """
    assert again(code, directory=directory) == first("the cat had a dog")["input_ids"]


def test_dtype_and_content_are_part_of_the_key(tiny: Callable[[str], Path], tmp_path: Path) -> None:
    """Half the precision is another directory, and so is a checkpoint changed in place; a copy elsewhere is not."""
    transformers, torch = library("transformers"), library("torch")
    directory = Path(shutil.copytree(tiny("bert"), tmp_path / "bert"))
    cls = transformers.AutoModel
    transformers_models.from_pretrained(cls, directory)
    half = transformers_models.from_pretrained(cls, directory, dtype=torch.float16)
    assert half.dtype == torch.float16
    transformers_models.from_pretrained(cls, shutil.copytree(directory, tmp_path / "copy"))
    assert cachekit.stats().as_dict()["misses"] == 2
    config = directory / "config.json"
    config.write_text(config.read_text().replace('"layer_norm_eps": 1e-12', '"layer_norm_eps": 1e-05'))
    changed = transformers_models.from_pretrained(cls, directory)
    assert changed.config.layer_norm_eps == 1e-05


def test_a_name_is_keyed_by_its_commit(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Without the hub, the commit of the machine's own copy; a commit needs neither; a directory has none."""
    library("huggingface_hub")
    first, constants = "a" * 40, importlib.import_module("huggingface_hub.constants")
    snapshot = tmp_path / "models--org--name" / "snapshots" / first
    snapshot.mkdir(parents=True)
    (snapshot / "config.json").write_text("{}")
    (snapshot.parent.parent / "refs").mkdir()
    (snapshot.parent.parent / "refs" / "main").write_text(first)
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path))
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    assert _building.commit("org/name", None) == first
    assert _building.commit("org/other", "v1") == _building.UNKNOWN
    assert _building.commit("org/name", "b" * 40) == "b" * 40
    assert _building.commit(tmp_path, "main") is None


def test_a_branch_nobody_knows_is_not_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    """It may be another commit tomorrow; the call goes to transformers as it is."""
    library("transformers")
    monkeypatch.setattr(importlib.import_module("huggingface_hub.constants"), "HF_HUB_OFFLINE", True)
    asked: list[Any] = []

    class Model:
        @classmethod
        def from_pretrained(cls, name: str, **options: Any) -> Any:
            asked.append((name, options))
            return cls()

    for _ in range(2):
        assert isinstance(transformers_models.from_pretrained(Model, "org/nowhere", revision="v1", dtype="auto"), Model)
    assert asked == [("org/nowhere", {"revision": "v1", "dtype": "auto"})] * 2


def test_a_missing_library_names_the_extra() -> None:
    """And a missing module inside an installed library is not mistaken for it."""
    with pytest.raises(cachekit.UsageError, match=r"cachekit-ipfs\[loaders\]"):
        _building.needed("no_such_library_anywhere")
    with pytest.raises(ModuleNotFoundError):
        _building.needed("json.no_such_module")
