"""Which call is this? From a function and its arguments to a `Key` (DESIGN §5): no wrong hit, ever.

A digest holds, each part length-prefixed: the function, its version or all that its code reaches at the moment of the call,
the namespace, the sample, and the arguments by name.
"""

from __future__ import annotations

import os
import re
import string
import types
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from cachekit.errors import CannotKey, UsageError
from cachekit.keys.binding import Arguments, Binder, paths_of
from cachekit.keys.secrets import is_secret_name
from cachekit.model import Key, Policy

if TYPE_CHECKING:
    # Imported by the first key: many programs decorate functions that one run of them never calls.
    from cachekit.keys.code.carried import Carried
    from cachekit.keys.code.function import Code
    from cachekit.keys.parts import Part, Sketch

ARGUMENT: Final = "argument "
"""What stands before the name of an argument in the parts of an explanation."""
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
        self,
        function: Callable[..., Any],
        *,
        policy: Policy,
        namespace: str | Callable[[], str] = "",
        held: tuple[Any, ...] = (),
    ) -> None:
        while isinstance(function, (classmethod, staticmethod)):
            function = function.__func__
        self._function: Any = function
        self._policy = policy
        self._namespace = namespace
        # A scratch directory is ours to give: a call need not name one.
        self._bind = Binder(function, (policy.scratch,) if policy.scratch else ())
        self._python = function if isinstance(function, types.FunctionType) else None
        self._held = held
        self._paths = paths_of(self._bind.signature)
        self._code: Code | None = None
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
        """Whether the arguments and `state()` together say everything that the key holds."""
        return self._policy.key is None and not self._paths and (self._code or self._current()).watch.fast

    def state(self) -> Any:
        """What stands for all that the code reads at this moment, for the fast lane: a number, equal as long as it is.

        () where nothing is read, the data itself where it is not plain; marshal refuses it where it cannot be said.
        """
        return self._read_again() if self._code is None else self._code.watch.guard()

    def quick(self) -> Callable[[], Any]:
        """What gives `state()` fastest from now on."""
        return self.state if self._code is None else self._code.watch.guard

    def _read_again(self) -> Any:
        try:
            said = None if self._code is None else self._code.watch.number()
            if said is None:
                code = self._current()
                said = () if code.nothing_read else code.watch.number()
            return _UNSAID if said is None else said
        except Exception:  # whatever a walk meets: the call takes the long way, which says what it is
            return _UNSAID

    def key(
        self, args: Arguments, kwargs: Mapping[str, Any], *, namespace: str | None = None, sample: int | None = None
    ) -> Key:
        """The key of one call. Raises CannotKey, which names the argument; Unbound where the call itself would fail."""
        return self.said(args, kwargs, namespace=namespace, sample=sample)[0]

    def said(
        self, args: Arguments, kwargs: Mapping[str, Any], *, namespace: str | None = None, sample: int | None = None
    ) -> tuple[Key, bytes | None]:
        """The key, and the JSON of the arguments that it was built of, where they are plain. Raises as `key` does."""
        # What a `key=` of the caller's raises is its author's, and so are arguments that the function does not take.
        identifying = self._identifying(self._bind(args, kwargs))
        try:
            digest, portable, inputs, data = self._current().digest(
                identifying,
                self._space(namespace),
                self._policy.sample if sample is None else sample,
                # Behind `key=` nothing is a parameter.
                extra=None if self._policy.key is not None else self._bind.extra_kwargs,
            )
        except UsageError:
            raise
        except Exception as error:  # whatever an object raises that is asked what it is: the call cannot be keyed
            raise CannotKey(
                f"its key cannot be built ({type(error).__name__}: {error}): leave the argument out with ignore=, or say "
                "what identifies the call with key="
            ) from error
        portable = portable or self._policy.version is not None
        key = Key(self._space(namespace), digest, self.name, portable, inputs=inputs)
        return key, data if self._policy.key is None else None

    def explain(
        self, args: Arguments, kwargs: Mapping[str, Any], *, namespace: str | None = None, sample: int | None = None
    ) -> Key:
        """The same key with `parts`: readable texts, secrets as `<secret>`. Raises as `key` does."""
        key = self.key(args, kwargs, namespace=namespace, sample=sample)
        index = self._policy.sample if sample is None else sample
        parts = [*self._own_parts(), ("namespace", key.namespace), *([("sample", str(index))] if index else [])]
        bound = self.bind(args, kwargs)
        parts += [(f"{ARGUMENT}{name}", _shown(name, value)) for name, value in self._identifying(bound).items()]
        return Key(key.namespace, key.digest, key.function, key.shareable, tuple(parts))

    def sketch(
        self, key: Key, args: Arguments, kwargs: Mapping[str, Any], *, sample: int = 0, said: bytes | None = None
    ) -> Sketch:
        """What is remembered of the call that `key` was built for, of what it `said` where that is known.

        What `key=` makes of the arguments is not asked again.
        """
        arguments = {} if said else self._counted(self._bind(args, kwargs))
        return self._current().sketch(key, arguments, said, (self._policy.version, key.namespace, sample))

    def outline(self) -> tuple[list[str], list[tuple[str, str]]]:
        """The tree of what the code reaches, a line each, and what is not followed, with the reason."""
        from cachekit.keys.outline import tree

        code = self._current()
        return tree(code.parts), list(code.unfollowed)

    def named(self, lines: list[str]) -> list[str]:
        """Lines of a comparison with the names that people have for things, and where these stand."""
        from cachekit.keys.outline import named

        return named(self._current().parts, lines)

    def carried(self, by_value: Callable[[str], bool]) -> Carried:
        """What goes along where the function, and what it reaches in modules that go `by_value`, go to another process."""
        from cachekit.keys.code.carried import gathered
        from cachekit.keys.code.own import is_own_file

        try:
            reached = self._current().functions
        except Exception:  # whatever a walk meets: where there is no key here, none is needed there
            reached = []
        itself = [] if self._python is None else [("__main__", self._python.__code__)]
        return gathered([*reached, *itself], by_value, is_own_file)

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

    def _current(self) -> Code:
        """What the function is now. Read again only where something that it reaches is another one than it was."""
        code = self._code
        if code is None or not (code.nothing_read or code.watch.same()):
            from cachekit.keys.code.function import code_of

            before, code = code, code_of(self._function, self._policy, self._held)
            if before is not None:
                code.as_imported(before)
            code.watch.otherwise = code.watch.guard = tuple if code.nothing_read else self._read_again
            self._code = code
        return code

    def settle(self) -> None:
        """After the function ran: what it imported counts from now on as it is, under the same key."""
        if self._code is not None and self._code.awaited:
            self._current()

    def _identifying(self, bound: dict[str, Any]) -> dict[str, Any]:
        """What of the arguments counts, by name: without the ignored, or what `key=` made of them."""
        if self._policy.key is not None:
            return {"key": self._policy.key(types.MappingProxyType(bound))}
        return self._counted(bound)

    def _counted(self, bound: dict[str, Any]) -> dict[str, Any]:
        """The arguments without the ignored ones."""
        ignore = self._policy.ignore
        if self._paths:
            bound.update({name: _path(bound[name]) for name in self._paths & bound.keys()})
        if not ignore:
            return bound
        kept = {name: value for name, value in bound.items() if name not in ignore}
        extra = self._bind.extra_kwargs
        if extra in kept:
            kept[extra] = {name: value for name, value in kept[extra].items() if name not in ignore}
        return kept

    def _own_parts(self) -> list[tuple[str, str]]:
        version, code = self._policy.version, self._current()
        parts = [("function", self.name), *([("version", version)] if version is not None else [])]
        parts += [(f"{part.kind} {part.name}", _said(part)) for part in code.parts]
        return parts + [(f"not followed {name}", kind) for name, kind in code.unfollowed]


def _path(value: Any) -> Any:
    """A text for a parameter that takes paths counts by content too, where something stands there."""
    return Path(value) if type(value) is str and value and os.path.exists(value) else value


_UNSAID: Final = (object(),)
"""marshal refuses it, so that nothing is found under it."""


def _shown(name: str, value: Any) -> str:
    from cachekit.keys.parts import shown

    return shown(name, value)


def _said(part: Part) -> str:
    from cachekit.keys.outline import place_of

    place = place_of(part)
    if not part.is_code:
        return _shown(part.name, part.value)
    return " ".join(filter(None, (part.digest, place)))
