"""Models, tokenizers and processors of transformers, loaded from a persisted directory.

from cachekit_adapters import transformers_models

model = transformers_models.from_pretrained(AutoModelForCausalLM, "org/name", revision="<commit>", dtype="float16")
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final, TypeVar

from cachekit import persist_artifact
from cachekit_adapters._building import UNKNOWN, commit, named, needed, source, spoken, versions

T = TypeVar("T")

# How the original is had. What is persisted stands where it stands, so none of these reaches it.
_FETCHING: Final = frozenset(
    {"cache_dir", "force_download", "local_files_only", "proxies", "resume_download", "use_auth_token", "token"}
)
_ORIGINAL: Final = frozenset({"subfolder", "variant", "code_revision", "from_tf", "from_flax", "gguf_file"})
_NEUTRAL: Final = _FETCHING - {"token", "use_auth_token"}


def from_pretrained(
    cls: type[T], name_or_dir: str | os.PathLike[str], *, revision: str | None = None, **options: Any
) -> T:
    """`cls.from_pretrained(name_or_dir, …)`, out of the `save_pretrained` directory that the first such call persisted.

    `cls` is anything with both methods. `options` are `from_pretrained`'s own; those about the loading itself are given
    to it again on a hit. `name_or_path` of what comes back is what you passed.

    The key holds the class, the content of a directory or else the name and its commit, the options and transformers'
    version. Where nobody can say which commit a branch is, nothing is kept: name the commit, and no network is needed.
    Raises what `cls` raises, and UsageError where transformers is not installed.
    """
    needed("transformers")
    model = source(name_or_dir)
    pinned = commit(model, revision)
    if pinned == UNKNOWN:
        return cls.from_pretrained(model, revision=revision, **options)  # type: ignore[attr-defined,no-any-return]
    keyed = spoken({name: value for name, value in options.items() if name not in _NEUTRAL})
    directory = _saved(cls, model, pinned, keyed, versions("transformers"), options=options)
    loading = {name: value for name, value in options.items() if name not in _FETCHING | _ORIGINAL}
    loaded = cls.from_pretrained(os.fspath(directory), **loading)  # type: ignore[attr-defined]
    return _renamed(loaded, os.fspath(name_or_dir))  # type: ignore[no-any-return]


@persist_artifact(version="1", ignore=("options",), scratch="scratch")
@named("transformers_models._saved")
def _saved(
    cls: Any,
    model: str | Path,
    revision: str | None,
    keyed: Mapping[str, Any],
    tools: Mapping[str, str],
    *,
    options: Mapping[str, Any],
    scratch: Path | None = None,
) -> Path:
    assert scratch is not None
    directory = scratch / "model"
    pinned = {} if revision is None else {"revision": revision}
    cls.from_pretrained(os.fspath(model), **pinned, **options).save_pretrained(os.fspath(directory))
    return directory


def _renamed(loaded: Any, name: str) -> Any:
    """`loaded`, saying that it came from where it was asked for; the store's own path means nothing to anybody."""
    for part in (loaded, getattr(loaded, "config", None)):
        if isinstance(getattr(part, "name_or_path", None), str):
            part.name_or_path = name  # type: ignore[union-attr]
    return loaded
