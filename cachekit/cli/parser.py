"""The `cachekit` command line. Exit status: 0 done or yes, 1 no or a tier failed, 2 the command must be changed."""

from __future__ import annotations

import argparse
import io
import json
import os
import sqlite3
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from cachekit.cli import artifacts, explain, look, node, remove, run, team
from cachekit.cli.report import INTERRUPTED, NO, USAGE, YES, Nothing, Report, explained
from cachekit.config.settings import TABLE
from cachekit.errors import CachekitError, UsageError


def main(argv: list[str] | None = None) -> int:
    """Runs one command; returns its exit status and raises nothing."""
    try:
        status = _run(argv)
        sys.stdout.flush()
        return status
    except KeyboardInterrupt:
        print("cachekit: interrupted", file=sys.stderr)
        return INTERRUPTED
    except BrokenPipeError:
        # The reader has seen enough (`cachekit ls | head`); without this, closing stdout at exit would complain.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return YES
    except UsageError as error:
        print(f"cachekit: {error}", file=sys.stderr)
        return USAGE
    except (CachekitError, sqlite3.Error, OSError) as error:
        print(f"cachekit: {explained(error)}", file=sys.stderr)
        return NO


def _run(argv: list[str] | None) -> int:
    if sys.stdout is None:
        # Closed by whoever started us (`>&-`): the command is still to be done.
        sys.stdout = open(os.devnull, "w", encoding="utf-8")  # noqa: SIM115 - for as long as the process lives
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="backslashreplace")
    argv = sys.argv[1:] if argv is None else argv
    parser = _parser()
    if not argv:
        parser.print_help(sys.stderr)
        return USAGE
    try:
        options, unknown = parser.parse_known_args(argv)
        if unknown:
            # Said by the command's own parser, whose usage shows what it would have taken.
            options.parser.error(f"unrecognized arguments: {' '.join(unknown)}")
    except SystemExit as done:
        return done.code if isinstance(done.code, int) else USAGE
    options.words = argv[1:]
    return _print(options)


def _print(options: argparse.Namespace) -> int:
    """Does what the options say, and prints what comes of it; returns the exit status."""
    try:
        report: Report = options.run(options)
    except Nothing as nothing:
        if options.json:
            print(json.dumps(nothing.data, indent=2))
        else:
            print(f"cachekit: {nothing}", file=sys.stderr)
        return NO
    if options.json:
        print(json.dumps(report.data, indent=2))
    elif report.raw is not None:
        sys.stdout.buffer.write(report.raw)
    else:
        print(report.text)
    return report.status


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="cachekit", description="Look at the cache, and act on it.", allow_abbrev=False
    )
    commands = parser.add_subparsers(metavar="COMMAND", required=True)
    _add_looking(commands)
    _add_removing(commands)
    _add_artifacts(commands)
    _add_ipfs(commands)
    return parser


def _add_looking(commands: Any) -> None:
    _command(commands, "stats", look.stats, "what all processes of this machine counted").add_argument(
        "function", nargs="?", metavar="FUNCTION", help="only this function"
    )
    _command(commands, "ls", look.ls, "the entries on disk, newest first").add_argument(
        "--artifacts", action="store_true", help="the files and trees of persist_artifact instead"
    )
    _command(commands, "show", look.show, "one entry on disk, or what an artifact is made of").add_argument(
        "key", metavar="KEY|NAME", help="<namespace>/<hex>, the beginning of the hex, or an artifact's name"
    )
    _key(_command(commands, "blame", look.blame, "who stored an answer, when, and by which code and model"))
    explaining = _command(
        commands, "explain", explain.explain, "why a call hits or misses; or what stands where for a key"
    )
    explaining.add_argument(
        "key", metavar="KEY|MODULE:FUNCTION", help="a key, or a decorated function (SCRIPT.py:FUNCTION)"
    )
    explaining.add_argument("--args", metavar="JSON", help="the call's arguments: an object by name, or a list")
    explaining.add_argument("--export", metavar="FILE", help="for `cachekit doctor --compare` on another machine")
    settings = _command(commands, "env", look.env, "the settings that hold; opens nothing")
    settings.add_argument("--explain", action="store_true", help="also who decided each of them")
    settings.add_argument(
        "--write",
        nargs="?",
        const="cachekit.toml",
        metavar="FILE",
        help="put those that somebody said, but for secrets, into a new file (cachekit.toml)",
    )
    _command(commands, "doctor", look.doctor, "what may be wrong, and what to do about it").add_argument(
        "--compare", metavar="FILE", help="why a call has another key here; FILE is of `cachekit explain --export`"
    )


def _add_removing(commands: Any) -> None:
    invalidate = _command(commands, "invalidate", remove.invalidate, "end hits for a tag, a namespace or a key")
    _key(invalidate, "?")
    invalidate.add_argument("--tag", help="entries with this tag; with --namespace only those of the namespace")
    invalidate.add_argument("--namespace", help="every entry of this namespace")
    clearing = _command(commands, "clear", remove.clear, "end hits for every entry of the configured namespace")
    clearing.add_argument("function", nargs="?", metavar="FUNCTION", help="only this function's, as `stats` names it")
    clearing.add_argument("--yes", action="store_true", help="do not ask")
    _command(commands, "gc", remove.gc, "drop what expired and what is over the limit")


def _add_artifacts(commands: Any) -> None:
    restore = _command(commands, "restore", artifacts.restore, "have an artifact here, verified; prints its path")
    restore.add_argument("name", metavar="NAME|KEY|CID", help="as `cachekit ls --artifacts` and `show` print them")
    restore.add_argument("--output", metavar="PATH", help="place it there, replacing what is")
    warm = _command(commands, "warm", artifacts.warm, "fetch an artifact's files ahead of its first use")
    warm.add_argument("--artifact", metavar="NAME|KEY", required=True, help="as `cachekit ls --artifacts` prints it")
    _add_cars(commands)
    running = _command(commands, "run", run.run, "run a command once: its output and its files are kept")
    for option, metavar, text in (
        ("--input", "PATH", "counts by content; may repeat"),
        ("--output", "PATH", "what it makes; may repeat"),
        ("--env", "NAME", "a variable that counts; may repeat"),
    ):
        running.add_argument(option, action="append", default=[], metavar=metavar, help=text)
    running.add_argument("--ttl", metavar="TIME", help="how long the outcome is good; for ever by default")
    for option, text in (
        ("--pin", "keep it in IPFS until unpinned"),
        ("--cwd", "the working directory counts, by its path"),
        ("--stdin", "pass standard input on; it counts (that of a file always is)"),
        ("--trace", "run it, and list what it read and nobody declared (with strace)"),
        ("--store-failures", "also keep an outcome whose status is not 0"),
    ):
        running.add_argument(option, action="store_true", help=text)
    running.add_argument("command", nargs=argparse.REMAINDER, metavar="-- COMMAND", help="and its arguments")


def _add_cars(commands: Any) -> None:
    export = _command(commands, "export", artifacts.export, "entries into a CAR file, signed and sealed as in IPFS")
    export.add_argument("file", metavar="FILE.car", help="replaced where it exists; `ipfs dag import` takes it too")
    export.add_argument("--tag", help="entries with this tag")
    export.add_argument("--function", help="entries of this function, as `cachekit ls` prints it")
    export.add_argument("--since", metavar="TIME", help="entries made at most so long ago, such as 2d")
    export.add_argument("--namespace", help="entries of this namespace")
    taking = _command(commands, "import", artifacts.take, "what `cachekit export` wrote: into IPFS, or onto this disk")
    taking.add_argument("file", metavar="FILE.car", help="of another machine with the same credential")


def _add_ipfs(commands: Any) -> None:
    _command(commands, "flush", node.flush, "upload what is queued, and wait for it").add_argument(
        "--timeout", type=_seconds, metavar="SECONDS", help="how long to wait at most; 60 by default"
    )
    _command(commands, "sync", node.sync, "pull what other writers published")
    _command(commands, "pins", node.pins, "what is pinned in IPFS, by reference")
    _command(commands, "unpin", node.unpin, "give up the references to a CID, or a key's").add_argument(
        "subject", metavar="CID|KEY|NAME", help="as `cachekit pins`, `cachekit ls` and `ls --artifacts` print them"
    )
    store = _command(commands, "store", node.store, "put a file into IPFS as it is; prints the CID")
    store.add_argument("path", metavar="PATH", help="the file; `-` is standard input")
    store.add_argument("--pin", action="store_true", help="keep it until `cachekit unpin`")
    store.add_argument("--encrypt", action="store_true", help="seal it under the namespace's secret")
    fetch = _command(commands, "fetch", node.fetch, "the verified bytes of a CID, to standard output")
    fetch.add_argument("cid", metavar="CID", help="as `cachekit store` and `cachekit pins` print it")
    fetch.add_argument("-o", "--output", metavar="PATH", help="to this file instead")
    fetch.add_argument("--peers", action="store_true", help="ask the daemons that ours knows, too")
    fetch.add_argument("--gateway", action="append", metavar="URL", help="and then this HTTP gateway; may be repeated")
    private = commands.add_parser("node", help="a private Kubo of this machine", allow_abbrev=False)
    actions = private.add_subparsers(metavar="ACTION", required=True)
    _command(actions, "install", node.install, "find, download or build Kubo")
    _command(actions, "start", node.start, "start the private node").add_argument(
        "--socket", action="store_true", help="on a unix socket instead of a loopback port"
    )
    _add_serving(_command(actions, "serve", node.serve, "run the private node until SIGTERM or Ctrl-C; for services"))
    _command(actions, "stop", node.stop, "end the private node")
    _command(actions, "status", team.status, "whether the private node runs and answers; the team, and who is offline")
    inviting = _command(actions, "invite", team.invite, "a token with which another machine joins; prints it alone")
    inviting.add_argument("--read-only", action="store_true", help="its machine reads, and publishes nothing")
    inviting.add_argument("--name", help="what the team calls that machine; its host's name by default")
    inviting.add_argument("--expires", metavar="TIME", help="how long it may write, such as 90d; for ever by default")
    inviting.add_argument("--address", metavar="HOST[:PORT]", help="where others reach this machine; found if left out")
    _command(actions, "revoke", team.revoke, "believe nothing new of a member").add_argument(
        "name", metavar="NAME|ID", help="as it was invited, or a writer's id"
    )
    _command(actions, "rotate", team.rotate, "a new secret for what is stored from now on")
    distrusting = _command(commands, "distrust", team.distrust, "end all that a member ever stored, on all machines")
    distrusting.add_argument("name", metavar="NAME|ID", help="as it was invited, or a writer's id")
    distrusting.add_argument("--since", metavar="TIME", help="only what it stored in the last, such as 2d")
    joining = _command(actions, "join", team.join, "make this machine's node one of a team")
    joining.add_argument(
        "token", metavar="TOKEN", help="as `cachekit node invite` printed it; treat it like a password"
    )
    joining.add_argument("--name", help="what the team calls this machine")


def _add_serving(serving: argparse.ArgumentParser) -> None:
    serving.add_argument(
        "--metrics",
        nargs="?",
        const="127.0.0.1:9559",
        metavar="HOST:PORT",
        help="answer /healthz and /metrics there; 127.0.0.1:9559 where you name none",
    )
    serving.add_argument(
        "--socket", nargs="?", const=True, type=Path, metavar="PATH", help="on a unix socket: the node's own, or there"
    )
    serving.add_argument(
        "--storage-max",
        type=_bytes,
        metavar="SIZE",
        help="collect what is not pinned before the node has so much: 20GB",
    )


def _command(
    commands: Any, name: str, run: Callable[[argparse.Namespace], Report], text: str
) -> argparse.ArgumentParser:
    parser: argparse.ArgumentParser = commands.add_parser(name, help=text, description=text, allow_abbrev=False)
    parser.add_argument("--json", action="store_true", help="print JSON")
    parser.set_defaults(run=run, parser=parser)
    return parser


def _key(parser: argparse.ArgumentParser, nargs: str | None = None) -> None:
    parser.add_argument("key", nargs=nargs, metavar="KEY", help="<namespace>/<hex>; the beginning of the hex may do")


def _bytes(text: str) -> int:
    try:
        size: int = next(one for one in TABLE if one.setting == "size_limit").read(text, "--storage-max")
    except UsageError as error:
        raise argparse.ArgumentTypeError(str(error)) from error
    return size


def _seconds(text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = -1.0
    if not 0 <= value < float("inf"):
        raise argparse.ArgumentTypeError(f"{text!r} is not a number of seconds")
    return value
