"""Which call is this? From a function and its arguments to a `Key` (DESIGN §5): no wrong hit, ever.

A digest holds, each part length-prefixed: the function and its version, the constants and closure it reads at the
moment of the call, the namespace, the sample, and the arguments by name.
"""

from __future__ import annotations

import hashlib
import marshal
import re
import string
import types
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, Final, cast

from cachekit.errors import UsageError
from cachekit.files.digests import frame
from cachekit.keys.binding import Arguments, Binder
from cachekit.keys.canonical import canonical
from cachekit.keys.function import OTHER, PLAIN, Describer, cells, constants, content, is_plain, named, written_only
from cachekit.keys.plain import plain
from cachekit.keys.readable import readable
from cachekit.keys.secrets import is_secret_name
from cachekit.keys.source import plain_globals, source_digest
from cachekit.model import Key, Policy

if TYPE_CHECKING:
    from hashlib import _Hash

Part = tuple[str, str]

ARGUMENT: Final = "argument "
"""What stands before the name of an argument in the parts of an explanation."""
_PREFIX_LIMIT: Final = 64
_DIGEST: Final = re.compile(r"[0-9a-fA-F]{64}")


def parse_key(text: str) -> Key:
    """The key of `<namespace>/<64 hex digits>`, which is what `str(key)` gives. UsageError for anything else."""
    namespace, _, digits = text.rpartition("/")
    if not namespace or not _DIGEST.fullmatch(digits):
        raise UsageError(
            f"{text!r} is not a key: it is <namespace>/<64 hex digits>; str(f.key_for(...)) and `cachekit ls` give one"
        )
    return Key(namespace, bytes.fromhex(digits))


class Keyer:
    """Builds the keys of one decorated function. Reads `version, ignore, key, sample, tags` of the policy.

    Constructing one does no I/O: the source is read for the first key. Safe to share between threads. Raises
    UsageError for a tag template that is more than plain names of parameters, or that would write out a secret.
    """

    def __init__(
        self, function: Callable[..., Any], *, policy: Policy, namespace: str | Callable[[], str] = ""
    ) -> None:
        while isinstance(function, (classmethod, staticmethod)):
            function = function.__func__
        self._function: Any = function
        self._policy = policy
        self._namespace = namespace
        # A scratch directory is ours to give: a call need not name one.
        self._bind = Binder(function, (policy.scratch,) if policy.scratch else ())
        self._python = function if isinstance(function, types.FunctionType) else None
        self._closure = cells(self._python, policy.ignore) if self._python else []
        self._names: tuple[str, ...] | None = None
        self._identity: tuple[bytes, bool] | None = None
        self._prefixes: dict[tuple[bytes, str, int], _Hash] = {}
        self.name = f"{function.__module__}.{function.__qualname__}"
        for template in policy.tags:
            self._check_template(template)

    @property
    def parameters(self) -> Mapping[str, Any]:
        """The function's own, by name."""
        return self._bind.signature.parameters

    def takes(self, name: str) -> bool:
        """Whether the function has a parameter of this name, or takes any."""
        return name in self._bind.signature.parameters or bool(self._bind.extra_kwargs)

    def bind(self, args: Arguments, kwargs: Mapping[str, Any]) -> dict[str, Any]:
        """Arguments by name, defaults applied; equal for calls that Python binds alike. Raises Unbound, a TypeError."""
        return self._bind(args, kwargs)

    @property
    def fast(self) -> bool:
        """Whether `state()` says everything about the state now. Cells can be rebound: ask for each call."""
        return not self._unplain()

    def state(self) -> tuple[object, ...]:
        """The plain constants the function reads and its closure, at this moment; `...` where a value is not plain."""
        names = self._global_names()
        if not names and not self._closure:
            return ()
        loaded = self._function.__globals__
        values = [loaded.get(name, OTHER) for name in names]
        found = [value if type(value) in PLAIN or is_plain(value) else OTHER for value in values]
        return (*found, *[content(cell) for _, cell in self._closure])

    def key(
        self, args: Arguments, kwargs: Mapping[str, Any], *, namespace: str | None = None, sample: int | None = None
    ) -> Key:
        """The key of one call. Raises CannotKey, which names the argument; TypeError where the call itself would."""
        space = self._space(namespace)
        describe = Describer()
        digest = self._prefix(space, self._policy.sample if sample is None else sample).copy()
        digest.update(frame(*[describe.closure(name, cell) for name, cell in self._unplain()]))
        digest.update(self._arguments(self.bind(args, kwargs), describe))
        return Key(space, digest.digest(), self.name, self._shareable(describe), inputs=tuple(describe.inputs))

    def explain(
        self, args: Arguments, kwargs: Mapping[str, Any], *, namespace: str | None = None, sample: int | None = None
    ) -> Key:
        """The same key with `parts`: readable texts, secrets as `<secret>`. Raises as `key` does."""
        key = self.key(args, kwargs, namespace=namespace, sample=sample)
        index = self._policy.sample if sample is None else sample
        parts = [*self._own_parts(), ("namespace", key.namespace), *([("sample", str(index))] if index else [])]
        bound = self.bind(args, kwargs)
        parts += [(f"{ARGUMENT}{name}", _text(name, value)) for name, value in self._identifying(bound).items()]
        return Key(key.namespace, key.digest, key.function, key.shareable, tuple(parts))

    def tags(self, bound: Mapping[str, Any]) -> tuple[str, ...]:
        """The policy's tags with the arguments filled in. `bound` is what `bind` gave."""
        names = {**bound, **bound.get(self._bind.extra_kwargs, {})}
        try:
            return tuple(template.format_map(names) for template in self._policy.tags)
        except KeyError as error:
            raise UsageError(f"a tag of {self.name} names {error.args[0]!r}, which this call does not pass") from None

    def _check_template(self, template: str) -> None:
        try:
            fields = [part[1:] for part in string.Formatter().parse(template) if part[1] is not None]
        except ValueError as error:
            raise UsageError(f"tag {template!r} of {self.name} is not a template: {error}") from None
        for name, layout, conversion in fields:
            if layout or conversion or not str(name).isidentifier() or not self.takes(str(name)):
                raise UsageError(f"tag {template!r} of {self.name}: {{{name}}} must be the plain name of a parameter")
            if is_secret_name(str(name)):
                raise UsageError(f"tag {template!r} of {self.name} would write out a secret: name another parameter")

    def _space(self, namespace: str | None) -> str:
        if namespace is not None:
            return namespace
        return self._namespace() if callable(self._namespace) else self._namespace

    def _global_names(self) -> tuple[str, ...]:
        if self._names is None:
            found = plain_globals(self._python) if self._python else ()
            left_out = self._policy.ignore | (written_only(self._python) if self._python else frozenset())
            self._names = tuple(name for name in found if name not in left_out)
        return self._names

    def _unplain(self) -> list[tuple[str, types.CellType]]:
        return [(name, cell) for name, cell in self._closure if content(cell) is OTHER] if self._closure else []

    def _prefix(self, namespace: str, sample: int) -> _Hash:
        state = self.state()
        # Typed bytes, because 1, 1.0 and True are one dict key.
        memo = (marshal.dumps(cast("Any", state), 2), namespace, sample)
        known = self._prefixes.get(memo)
        if known is None:
            if len(self._prefixes) >= _PREFIX_LIMIT:
                self._prefixes.clear()
            known = self._prefixes[memo] = self._start(state, namespace, sample)
        return known

    def _start(self, state: tuple[object, ...], namespace: str, sample: int) -> _Hash:
        names = self._global_names()
        labels = [*names, *(name for name, _ in self._closure)]
        known = list(zip(labels, state, strict=True))
        known_constants = {name: value for name, value in known[: len(names)] if value is not OTHER}
        cells = [(name, value) for name, value in known[len(names) :] if value is not OTHER]
        describe = Describer()
        parts = [
            canonical(known_constants, where="constants"),
            *[named(name, value, describe) for name, value in cells],
        ]
        # Without a sample the digest is what it was before anybody sampled.
        index = [b"%d" % sample] if sample else []
        identity = self._who()[0]
        return hashlib.sha256(frame(b"cachekit key v1", identity, frame(*parts), namespace.encode(), *index))

    def _who(self) -> tuple[bytes, bool]:
        if self._identity is None:
            describe = Describer()
            identity = describe.identity(self._function, self._policy.version)
            codec = describe.codec(self._policy.codec, self._policy.version)
            self._identity = (frame(identity, codec) if codec else identity, describe.portable)
        return self._identity

    def _shareable(self, describe: Describer) -> bool:
        return self._policy.version is not None or (self._who()[1] and describe.portable)

    def _identifying(self, bound: dict[str, Any]) -> dict[str, Any]:
        """What of the arguments counts, by name: without the ignored, or what `key=` made of them."""
        if self._policy.key is not None:
            return {"key": self._policy.key(types.MappingProxyType(bound))}
        ignore = self._policy.ignore
        if not ignore:
            return bound
        kept = {name: value for name, value in bound.items() if name not in ignore}
        extra = self._bind.extra_kwargs
        if extra in kept:
            kept[extra] = {name: value for name, value in kept[extra].items() if name not in ignore}
        return kept

    def _arguments(self, bound: dict[str, Any], describe: Describer) -> bytes:
        kept = self._identifying(bound)
        tag = b"key" if self._policy.key is not None else b"call"
        data = plain(kept)
        if data is not None:
            return frame(tag, b"plain", data)
        # One by one, so that a refusal names the argument, and **kwargs by their own names.
        return frame(tag, b"named", *[self._argument(name, kept[name], describe) for name in sorted(kept)])

    def _argument(self, name: str, value: Any, describe: Describer) -> bytes:
        if name != self._bind.extra_kwargs or self._policy.key is not None:
            return named(name, value, describe)
        return frame(name.encode(), *[named(inner, value[inner], describe) for inner in sorted(value)])

    def _own_parts(self) -> list[Part]:
        version = self._policy.version
        digest = "" if version is not None or self._python is None else source_digest(self._python)[0][:12]
        parts = [("function", self.name), ("version", version if version is not None else f"source {digest}")]
        if self._python is not None:
            read = constants(self._python, self._global_names(), self._policy.ignore)
            parts += [(f"constant {name}", _text(name, value)) for name, value in read.items()]
        return parts + [(f"closure {name}", self._cell_text(name, cell)) for name, cell in self._closure]

    @staticmethod
    def _cell_text(name: str, cell: types.CellType) -> str:
        try:
            return _text(name, cell.cell_contents)
        except ValueError:
            return "<empty>"


def _text(name: str, value: Any) -> str:
    return "<secret>" if is_secret_name(name) else readable(value)
