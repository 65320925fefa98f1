"""GitHub: its REST and GraphQL APIs, and its command line `gh`, whose reads are kept for as long as their noun says.

    runs = github.gh(["run", "list", "--repo", "octo/hello", "--json", "status"], text=True).stdout
    with github.GitHub() as client:
        issues = client.get("/repos/octo/hello/issues").json()

Past that time the answer is asked for by its ETag. A rate limit or a failure of GitHub brings what was kept before, up to
a day old, and every process of the machine leaves the account alone until GitHub may be asked again.
"""

from __future__ import annotations

import functools
import os
import re
import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final

from cachekit import UsageError
from cachekit_adapters._revalidating.accounts import account
from cachekit_adapters._revalidating.answers import Answer, RateLimited
from cachekit_adapters._revalidating.road import Question, road
from cachekit_adapters._revalidating.tags import Tags
from cachekit_adapters.github.client import GitHub, judged
from cachekit_adapters.github.commands import Command, command_of
from cachekit_adapters.github.places import Place, place_of

__all__ = ["Answer", "GitHub", "RateLimited", "gh"]

Done = subprocess.CompletedProcess[Any]

_STATUS: Final = re.compile(rb"HTTP (\d{3})\b")
_QUERY: Final = re.compile(r"^(?:-[fF]=?|--(?:raw-)?field=)?query=.*", re.DOTALL)
_REFUSED: Final = re.compile(rb"rate limit|abuse detection", re.IGNORECASE)
_UNREACHED: Final = re.compile(rb"error connecting to|dial tcp|i/o timeout|connection re(?:set|fused)|no such host")


def gh(
    arguments: Sequence[str],
    *,
    text: bool = False,
    input: bytes | str | None = None,
    cwd: str | os.PathLike[str] | None = None,
    env: Mapping[str, str] | None = None,
    timeout: float | None = None,
    check: bool = False,
    gh: str = "gh",
) -> Done:
    """What `gh` with these arguments, those after `gh`, says: kept, or of gh itself.

    Takes what `subprocess.run` takes: standard output and error are captured, as bytes, or decoded as UTF-8 with `text`.
    Kept are reads that exit with 0. What changes something is always run, and ends what is kept of its repository.
    `input` is passed on, and such a call is not kept. `gh` is the program. While the account is to be left alone and
    nothing is kept, it exits with 1 and says so.

    Raises UsageError for one text in place of a list, FileNotFoundError where there is no gh, TimeoutExpired after
    `timeout` seconds, and with `check` CalledProcessError for an exit status that is not 0.
    """
    if isinstance(arguments, (str, bytes)):
        raise UsageError(f"gh() takes a list of arguments, such as {str(arguments).split()!r}")
    spoken, directory = [os.fspath(argument) for argument in arguments], Path(cwd or ".")
    environment = dict(os.environ if env is None else env)
    command = command_of(spoken, directory)
    place = place_of(command, directory, environment, gh)
    how = {"cwd": cwd, "env": environment, "timeout": timeout}
    given = input.encode() if isinstance(input, str) else input
    if command.does == "read" and place.host and given is None:
        done = _read(spoken, command, place, how)
    else:
        run = functools.partial(_run, place.program, spoken, how, given)
        ends = Tags("github", place.host).changed([command.repo])
        done = road("github.gh").changing(ends, run) if command.does == "change" else run()
    return _finished(["gh", *spoken], done, text=text, check=check)


def _finished(arguments: list[str], done: Done, *, text: bool, check: bool) -> Done:
    said = [stream.decode("utf-8", "replace") if text else stream for stream in (done.stdout, done.stderr)]
    finished = subprocess.CompletedProcess[Any](arguments, done.returncode, *said)
    if check:
        finished.check_returncode()
    return finished


def _run(program: str, arguments: Sequence[str], how: Mapping[str, Any], given: bytes | None = None) -> Done:
    return subprocess.run([program, *arguments], input=given, capture_output=True, check=False, **how)


def _read(arguments: list[str], command: Command, place: Place, how: Mapping[str, Any]) -> Done:
    who = functools.partial(_who, place, how)
    asker = account(place.host, place.secret, who)
    identity = {**place.identity, "host": place.host, "account": asker, "arguments": _counting(arguments, command)}
    if command.query is not None:
        identity["query"] = command.query.text
    tags = Tags("github", place.host)
    question = Question(
        identity,
        command.ttl,
        f"{place.host} {asker} {command.resource}",
        tags.area(command.repo),
        tags.all,
    )
    last: list[Done] = []

    def send(conditions: Mapping[str, str]) -> Answer:
        asked, answer = _asked(arguments, command, place, how, {} if command.query else conditions)
        last.append(asked)
        return answer

    try:
        answer = road("github.gh").ask(question, send)
    except RateLimited as error:
        return subprocess.CompletedProcess([], 1, b"", f"cachekit: {error}\n".encode())
    if answer.status == 200:
        return subprocess.CompletedProcess([], 0, answer.body, answer.aside)
    # Without one, another thread's gh was told no at the same time; what it printed is not known here.
    return last[-1] if last else _run(place.program, arguments, how)


def _counting(arguments: list[str], command: Command) -> list[str]:
    """The arguments that decide the answer: a query's text counts as it is read, not as it is written."""
    if command.query is None:
        return arguments
    return [_QUERY.sub("query", argument) for argument in arguments]


def _asked(
    arguments: list[str], command: Command, place: Place, how: Mapping[str, Any], conditions: Mapping[str, str]
) -> tuple[Done, Answer]:
    """What gh itself did, without the headers that it was asked to show, and what that means."""
    if not command.single:
        done = _run(place.program, arguments, how)
        return done, _meant(done)
    headers = [part for name, text in conditions.items() for part in ("-H", f"{name}: {text}")]
    done = _run(place.program, ["api", "--include", *headers, *arguments[1:]], how)
    status, said, body = _parted(done.stdout)
    done = subprocess.CompletedProcess([], done.returncode, body, done.stderr)
    if not status:
        return done, _meant(done)
    answer = Answer(status, said, body, done.stderr)
    if status == 200 and done.returncode:
        # Errors in a GraphQL answer, or a filter that failed: gh says so, and it is none to keep.
        answer = judged(answer)._replace(headers={**said, "cache-control": "no-store"})
        answer = answer._replace(status=answer.status if answer.status != 200 else 422)
    return done, answer


def _meant(done: Done) -> Answer:
    """What an exit status and the words beside it mean, as an HTTP status."""
    if done.returncode == 0:
        return Answer(200, {}, done.stdout, done.stderr)
    said = _STATUS.search(done.stderr)
    if _REFUSED.search(done.stderr):
        status = 429
    elif said is not None:
        status = int(said[1])
    else:
        status = 503 if _UNREACHED.search(done.stderr) else 422
    return Answer(422 if status == 200 else status, {}, done.stdout, done.stderr)


def _parted(output: bytes) -> tuple[int, dict[str, str], bytes]:
    """Status, headers and body of what `gh api --include` printed; status 0 where it printed none."""
    head, _, body = output.partition(b"\r\n\r\n")
    first, *lines = head.decode("latin-1").replace("\r\n", "\n").split("\n")
    words = first.split(" ")
    if not first.startswith("HTTP/") or len(words) < 2 or not words[1].isdecimal():
        return 0, {}, output
    headers = (line.partition(":") for line in lines)
    return int(words[1]), {name.strip().lower(): value.strip() for name, _, value in headers}, body


def _who(place: Place, how: Mapping[str, Any]) -> Answer:
    """Asks gh itself in whose name it asks."""
    # `--hostname` takes no port.
    how = {**how, "env": {**how["env"], "GH_HOST": place.host}}
    done = _run(place.program, ["api", "--include", "user"], how)
    status, headers, body = _parted(done.stdout)
    return Answer(status or _meant(done).status, headers, body, done.stderr)
