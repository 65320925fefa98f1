"""Commands of other tools, run once: what they print, how they end, and the files they make.

from cachekit_adapters import command

done = command.run(["pandoc", "a.md", "-o", "a.pdf"], inputs=["a.md"], outputs=["a.pdf"])   # a CompletedProcess

@distributed_cache(adapter=command.RUN)        # or a function of your own that returns a CompletedProcess
def lint(text: str) -> subprocess.CompletedProcess[bytes]: ...
"""

from __future__ import annotations

import os
import subprocess
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, NamedTuple

from cachekit import Adapter, Event, Reply, UsageError, bypass, invalidate, run_command, tell

StrPath = str | os.PathLike[str]

_NAME: Final = "command.run"


class Verdict(NamedTuple):
    """What a preset says of one call: why it passes the cache by ("" where it does not), how long its outcome is good,
    files that count, and whether it changes what reads of the same tool were told.
    """

    bypass: str = ""
    ttl: Any = None
    inputs: tuple[str, ...] = ()
    changes: bool = False


@dataclass(frozen=True, slots=True)
class Preset:
    """What is known of one tool. `judge` takes its arguments; `env` are variables and `settings` files that decide the
    answer (`~` is the home directory), the latter where they are there; `share` lets outcomes leave this machine.
    """

    name: str
    judge: Callable[[Sequence[str]], Verdict]
    env: tuple[str, ...] = ()
    settings: tuple[str, ...] = ()
    share: bool = True


def run(
    argv: Sequence[StrPath],
    *,
    input: bytes | str | None = None,
    cwd: StrPath | None = None,
    env: Iterable[str] = (),
    inputs: Iterable[StrPath] = (),
    outputs: Iterable[StrPath] = (),
    ttl: Any = None,
    account: str = "",
    side_effecting: bool = False,
    store_failures: bool = False,
    check: bool = False,
    text: bool = False,
    preset: Preset | None = None,
    **policy: Any,
) -> subprocess.CompletedProcess[Any]:
    """What `subprocess.run(argv, capture_output=True)` gives, had again where the same command ran before.

    The key holds the program (see docs/commands.md), `argv`, `input`, `cwd` as it is written, the values of the variables
    that `env` names, the content of `inputs`, the names of `outputs`, and `account`. A status other than 0 is passed on
    and not kept, unless `store_failures`.

    Args:
        ttl: how long an outcome is good; None for ever, left out with a preset what that says.
        side_effecting: the command changes something: it runs, once, and is counted as a bypass.
        check: raises CalledProcessError for a status other than 0, as `subprocess.run` does.
        text: stdout and stderr as str (UTF-8, what is none of it replaced); bytes else.
        preset: what is known of the tool; `agents` and `containers` have some.
        policy: pin, tags, share and namespace, as for `persist_artifact`.

    Raises UsageError for a text in place of a list, and for files that are not there.
    """
    verdict = Verdict() if preset is None else preset.judge([os.fspath(word) for word in argv][1:])
    reason = "side_effecting" if side_effecting else verdict.bypass
    name = _NAME if preset is None else preset.name
    if reason:
        tell(Event("bypass", name, reason=reason))
    tags = (*policy.pop("tags", ()), *(() if preset is None else (name,)))
    with bypass() if reason else nullcontext():
        done = run_command(
            argv,
            input=input.encode() if isinstance(input, str) else input,
            cwd=cwd,
            env=[*env, *(() if preset is None else preset.env)],
            inputs=[*inputs, *_there(verdict.inputs, cwd), *(() if preset is None else _there(preset.settings, cwd))],
            outputs=outputs,
            account=account,
            store_failures=store_failures,
            ttl=verdict.ttl if ttl is None else ttl,
            tags=tags,
            **{**({} if preset is None or preset.share else {"share": False}), **policy},
        )
    if reason and verdict.changes:
        invalidate(tag=name)
    return _completed(argv, done.returncode, done.stdout, done.stderr, check=check, text=text)


def _there(names: Iterable[str], cwd: StrPath | None) -> list[str]:
    paths = [os.path.join(cwd or "", os.path.expanduser(name)) for name in names]
    return [path for path in dict.fromkeys(paths) if os.path.isfile(path)]


def _completed(
    argv: Sequence[StrPath], status: int, stdout: bytes, stderr: bytes, *, check: bool, text: bool
) -> subprocess.CompletedProcess[Any]:
    said = [part.decode("utf-8", "replace") if text else part for part in (stdout, stderr)]
    done = subprocess.CompletedProcess[Any](list(argv), status, *said)
    if check:
        done.check_returncode()
    return done


def _capture(answer: Any) -> Reply | None:
    """A finished process as bytes; None for what is none, or whose output was not captured as bytes."""
    if not isinstance(answer, subprocess.CompletedProcess):
        return None
    parts = [b"" if part is None else part for part in (answer.stdout, answer.stderr)]
    if not all(isinstance(part, bytes) for part in parts):
        return None
    head = f"{answer.returncode} {int(answer.stdout is None)}{int(answer.stderr is None)} {len(parts[0])}\n"
    return Reply("plain", head.encode() + parts[0] + parts[1], {"status": str(answer.returncode)})


def _restore(reply: Reply, _stream: bool, _context: Any) -> Any:
    head, _, rest = reply.body.partition(b"\n")
    status, nothing, size = head.split()
    parts = (rest[: int(size)], rest[int(size) :])
    said = [None if nothing[place : place + 1] == b"1" else part for place, part in enumerate(parts)]
    return subprocess.CompletedProcess([], int(status), *said)


RUN: Final = Adapter(
    name=_NAME,
    capture=_capture,
    restore=_restore,
    judge=lambda reply: "" if reply.about.get("status") == "0" else "failed",
)
"""For functions that return a CompletedProcess with bytes. `args` of a hit is empty; a failed one is not kept."""


def preset_of(argv: Sequence[StrPath], presets: Mapping[str, Preset]) -> Preset:
    """The preset of a command's program, by its name. Raises UsageError where there is none."""
    if isinstance(argv, (str, bytes)) or not argv:
        raise UsageError("a command is a list such as ['docker', 'images'], not a text")
    name = Path(os.fspath(argv[0])).name.removesuffix(".exe")
    if name not in presets:
        raise UsageError(f"no preset for {name!r}; there are {', '.join(sorted(presets))}: use command.run")
    return presets[name]


class Words(NamedTuple):
    """A command line taken apart: options with their values ("" for a flag), and the words that are none."""

    options: dict[str, list[str]]
    plain: tuple[str, ...]

    def has(self, *names: str) -> bool:
        return any(name in self.options for name in names)


def words_of(arguments: Sequence[str], taking: Iterable[str]) -> Words:
    """Takes apart `arguments`; `taking` are the options whose value is the next word. `--` ends the options."""
    options, plain = dict[str, list[str]](), list[str]()
    rest, taken = iter(arguments), frozenset(taking)
    for word in rest:
        if word == "--":
            plain += rest
        elif not word.startswith("-") or word == "-":
            plain.append(word)
        else:
            for name, value in _options(word, rest, taken):
                options.setdefault(name, []).append(value)
    return Words(options, tuple(plain))


def _options(word: str, rest: Iterator[str], taking: frozenset[str]) -> Iterator[tuple[str, str]]:
    if word.startswith("--"):
        name, equals, value = word.partition("=")
        yield name, next(rest, "") if not equals and name in taking else value
        return
    # Letters may stand together: `-wn NAME` is `-w` and `-n NAME`.
    for place, letter in enumerate(word[1:], 2):
        name, value = f"-{letter}", word[place:]
        if name in taking or value.startswith("="):
            yield name, value.removeprefix("=") or next(rest, "")
            return
        yield name, ""
