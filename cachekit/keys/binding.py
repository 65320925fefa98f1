"""Arguments by name, as Python would bind them."""

from __future__ import annotations

import inspect
import re
import typing
from collections.abc import Mapping
from typing import Any, Final

Arguments = tuple[Any, ...]


_PATH: Final = re.compile(r"\b(Path|PurePath|PosixPath|PathLike)\b")


def paths_of(signature: inspect.Signature) -> frozenset[str]:
    """The parameters that are annotated as paths, alone or in a union."""
    return frozenset(name for name, one in signature.parameters.items() if _takes_paths(one.annotation))


def _takes_paths(annotation: Any) -> bool:
    if isinstance(annotation, str):
        return _PATH.search(annotation) is not None
    if isinstance(annotation, type) and typing.get_origin(annotation) is None:
        return hasattr(annotation, "__fspath__")
    return any(map(_takes_paths, typing.get_args(annotation)))


class Unbound(TypeError):
    """The function does not take these arguments. Its own class: a TypeError of a `key=` callable is its author's."""


class Binder:
    """Binds as Python does, by hand: Signature.bind costs several times as much as the rest of the key."""

    def __init__(self, function: Any, optional: tuple[str, ...] = ()) -> None:
        """`optional` parameters are None where a call leaves them out and the function says nothing else."""
        # The signature of this very function: a wrapper may fill in defaults that differ from what it wraps.
        self.signature = inspect.signature(function, follow_wrapped=False)
        self.keyword = frozenset[str]()
        self.positional: tuple[str, ...] = ()
        self.defaults: dict[str, Any] = {}
        self.extra_args = self.extra_kwargs = ""
        for name, parameter in self.signature.parameters.items():
            self._add(name, parameter)
            if name in optional:
                self.defaults.setdefault(name, None)
        self._count = len(self.signature.parameters)
        self._loose = bool(self.extra_args or self.extra_kwargs)

    def _add(self, name: str, parameter: inspect.Parameter) -> None:
        kind = parameter.kind
        if kind is kind.VAR_POSITIONAL:
            self.extra_args, self.defaults[name] = name, ()
        elif kind is kind.VAR_KEYWORD:
            self.extra_kwargs = name
        else:
            if kind is not kind.KEYWORD_ONLY:
                self.positional = (*self.positional, name)
            if kind is not kind.POSITIONAL_ONLY:
                self.keyword |= {name}
            if parameter.default is not parameter.empty:
                self.defaults[name] = parameter.default

    def __call__(self, args: Arguments, kwargs: Mapping[str, Any]) -> dict[str, Any]:
        bound = self.defaults.copy()
        if args:
            bound.update(zip(self.positional, args, strict=False))
            if kwargs and not kwargs.keys().isdisjoint(self.positional[: len(args)]):
                return self._general(args, kwargs)
        if self.keyword.issuperset(kwargs):
            bound.update(kwargs)
        elif not self.extra_kwargs:
            return self._general(args, kwargs)
        if self._loose:
            self._gather(bound, args, kwargs)
        elif len(args) > len(self.positional):
            return self._general(args, kwargs)
        return bound if len(bound) == self._count else self._general(args, kwargs)

    def _gather(self, bound: dict[str, Any], args: Arguments, kwargs: Mapping[str, Any]) -> None:
        if self.extra_args:
            bound[self.extra_args] = args[len(self.positional) :]
        elif len(args) > len(self.positional):
            bound.clear()  # incomplete: the general way raises what Python raises
        if self.extra_kwargs:
            bound.update((name, value) for name, value in kwargs.items() if name in self.keyword)
            bound[self.extra_kwargs] = {name: value for name, value in kwargs.items() if name not in self.keyword}

    def _general(self, args: Arguments, kwargs: Mapping[str, Any]) -> dict[str, Any]:
        try:
            bound = self.signature.bind(*args, **kwargs)
        except TypeError as error:
            raise Unbound(str(error)) from None
        bound.apply_defaults()
        return dict(bound.arguments)
