"""Embeddings, a text at a time: only texts whose vector is not known reach the model, all in one call.

from cachekit_adapters import vectors

@vectors.embed(model="all-MiniLM-L6-v2@c9745ed1")
def embed(texts: list[str]) -> np.ndarray:              # shape (len(texts), width)
    return model.encode(texts)
"""

from __future__ import annotations

import functools
import inspect
import os
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Final, NamedTuple, overload

from cachekit import Cached, UsageError, distributed_cache, together
from cachekit_adapters._building import needed

Embed = Callable[..., Any]

# Each would act on one text of a batch, behind the back of the one call that asks for all of them.
_REFUSED: Final = ("stale_while_revalidate", "stale_if_error", "retry", "codec", "key", "adapter", "cacheable")


@overload
def embed(function: Embed, /) -> Embed: ...
@overload
def embed(*, model: str | os.PathLike[str] | None = ..., **keywords: Any) -> Callable[[Embed], Embed]: ...
def embed(function: Embed | None = None, /, *, model: str | os.PathLike[str] | None = None, **keywords: Any) -> Any:
    """A function of the same signature whose answers are kept text by text; bare (`@embed`) or called.

    The function takes a sequence of texts first, and gives a vector for each: an array of shape (texts, width), or a
    sequence of arrays. What comes back is an array of that shape. Its other arguments are part of the key. A vector must
    not depend on its neighbours.

    `model` says which model it is: a name with its revision, or a Path, which means its content. It replaces the
    function's source and closure in the key, and is needed where those hold the model itself. `keywords` are keywords of
    `distributed_cache`; vectors are kept for 24 h unless `ttl=` says otherwise.

    Raises UsageError for a keyword that cannot mean a single text, and for an answer that is not a vector for each text.
    """
    refused = [name for name in _REFUSED if name in keywords]
    if refused:
        raise UsageError(f"{refused[0]}= is not for single vectors: say it of the function that embed() wraps")
    if function is None:
        return functools.partial(_embedding, model=model, keywords=keywords)
    return _embedding(function, model=model, keywords=keywords)


def _embedding(function: Embed, *, model: str | os.PathLike[str] | None, keywords: Mapping[str, Any]) -> Embed:
    signature = inspect.signature(function)
    first = next(iter(signature.parameters), "")
    if first in ("", "self", "cls") or inspect.iscoroutinefunction(function):
        raise UsageError("embed() takes a plain function whose first argument is the texts; call the method from one")
    one, ignored = _one(function, keywords), _listed(keywords.get("ignore", ()))
    identity = _identity(function, model, keywords)

    @functools.wraps(function)
    def embedded(*args: Any, **kwargs: Any) -> Any:
        bound = signature.bind(*args, **kwargs)
        bound.apply_defaults()
        texts = _texts(bound.arguments[first], first)
        keyed = {name: value for name, value in bound.arguments.items() if name != first and name not in ignored}
        return _vectors(texts, lambda missing: _embedded(function, bound, first, missing), one, (identity, keyed))

    return embedded


def _one(function: Embed, keywords: Mapping[str, Any]) -> Cached[Any, Any]:
    """What keeps one vector; named after `function`, so that statistics show whose it is."""

    def one(text: str, model: Any, arguments: Mapping[str, Any]) -> Any:
        """Stands for a text in keys and statistics; it is never called."""

    one.__module__, one.__qualname__ = function.__module__, f"{function.__qualname__}.vector"
    own = {"ignore": (), "codec": "ndarray", "cacheable": _finite}
    policy = {"ttl": "24h", "version": "1", **keywords, **own}
    return distributed_cache(**policy)(one)


def _finite(vector: Any) -> bool:
    """Whether a vector is an answer: what has no numbers, or some that are none, is not kept."""
    numpy = needed("numpy")
    return bool(vector.size and (vector.dtype.kind not in "fc" or numpy.isfinite(vector).all()))


def _identity(function: Embed, model: str | os.PathLike[str] | None, keywords: Mapping[str, Any]) -> Any:
    if model is None:
        return None if keywords.get("version") else function
    return Path(model) if isinstance(model, os.PathLike) else model


def _vectors(
    texts: list[str], ask: Callable[[list[str]], Any], one: Cached[Any, Any], key: tuple[Any, Mapping[str, Any]]
) -> Any:
    if not texts:
        return ask(texts)
    batch = _Texts(list(dict.fromkeys(texts)), ask, {})
    together(one, [(text, *key) for text in batch.texts], batch)
    return needed("numpy").stack([batch.vectors[text] for text in texts])


class _Texts(NamedTuple):
    """A batch of texts, each once, and what `ask` says to those that are not known."""

    texts: list[str]
    model: Callable[[list[str]], Any]
    vectors: dict[str, Any]

    def known(self, at: int, vector: Any) -> bool:
        self.vectors[self.texts[at]] = vector
        return True

    def ask(self, places: Sequence[int]) -> Any:
        return self.model([self.texts[at] for at in places])

    def learn(self, places: Sequence[int], answer: Any) -> Mapping[int, Any]:
        array = needed("numpy").array
        learned = {at: array(vector) for at, vector in zip(places, answer, strict=True)}
        self.vectors.update({self.texts[at]: vector for at, vector in learned.items()})
        return learned


def _embedded(function: Embed, bound: inspect.BoundArguments, first: str, missing: list[str]) -> Any:
    arguments = inspect.BoundArguments(bound.signature, type(bound.arguments)({**bound.arguments, first: missing}))
    answer = function(*arguments.args, **arguments.kwargs)
    if callable(getattr(answer, "detach", None)):
        answer = answer.detach().cpu().numpy()
    if len(answer) != len(missing):
        raise UsageError(
            f"{function.__qualname__} gave {len(answer)} vectors for {len(missing)} texts; one each is needed"
        )
    return answer


def _texts(value: Any, name: str) -> list[str]:
    texts = [] if isinstance(value, str) else list(value)
    if isinstance(value, str) or not all(isinstance(text, str) for text in texts):
        raise UsageError(f"{name}= takes a sequence of str, such as [text]")
    return [str(text) for text in texts]


def _listed(names: Any) -> tuple[str, ...]:
    return (names,) if isinstance(names, str) else tuple(names)
