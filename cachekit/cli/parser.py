"""The `cachekit` command line. Exit status: 0 done or yes, 1 no or a tier failed, 2 the command must be changed."""

from __future__ import annotations

import argparse
import io
import json
import os
import sqlite3
import sys
from collections.abc import Callable
from dataclasses import replace
from typing import Any

from cachekit.cache import default as library
from cachekit.cache import operations
from cachekit.cli import artifacts, look
from cachekit.cli import node as cli_node
from cachekit.cli import run as cli_run
from cachekit.cli.answer import INTERRUPTED, NO, USAGE, YES, Answer, disk_of, explained, find_key, no_such, unanswered
from cachekit.errors import CachekitError, UsageError
from cachekit.model import EVERYWHERE


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
    return _print(options.run(options), as_json=options.json)


def _print(answer: Answer, *, as_json: bool) -> int:
    if as_json:
        print(json.dumps(answer.data, indent=2))
    elif answer.raw is not None:
        sys.stdout.buffer.write(answer.raw)
    else:
        print(answer.text, file=sys.stderr if answer.aside else sys.stdout)
    return answer.status


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="cachekit", description="Look at the cache, and act on it.", allow_abbrev=False
    )
    commands = parser.add_subparsers(metavar="COMMAND", required=True)
    _command(commands, "stats", look.stats, "what all processes of this machine counted").add_argument(
        "function", nargs="?", metavar="FUNCTION", help="only this function"
    )
    _command(commands, "ls", look.ls, "the entries on disk, newest first").add_argument(
        "--artifacts", action="store_true", help="the files and trees of persist_artifact instead"
    )
    _command(commands, "show", look.show, "one entry on disk, or what an artifact is made of").add_argument(
        "key", metavar="KEY|NAME", help="<namespace>/<hex>, the beginning of the hex, or an artifact's name"
    )
    _key(_command(commands, "explain", look.explain, "what stands where for a key"))
    _command(commands, "env", look.env, "the settings that hold; opens nothing").add_argument(
        "--explain", action="store_true", help="also who decided each of them"
    )
    _command(commands, "doctor", look.doctor, "what may be wrong, and what to do about it")
    _key(invalidating := _command(commands, "invalidate", _invalidate, "end hits for a tag, a namespace or a key"), "?")
    invalidating.add_argument("--tag", help="entries with this tag; with --namespace only those of the namespace")
    invalidating.add_argument("--namespace", help="every entry of this namespace")
    _command(commands, "clear", _clear, "end hits for every entry of the configured namespace").add_argument(
        "--yes", action="store_true", help="do not ask"
    )
    _command(commands, "gc", _gc, "drop what expired and what is over the limit")
    restoring = _command(commands, "restore", artifacts.restore, "have an artifact here, verified; prints its path")
    restoring.add_argument("name", metavar="NAME|KEY|CID", help="as `cachekit ls --artifacts` and `show` print them")
    restoring.add_argument("--output", metavar="PATH", help="place it there, replacing what is")
    warming = _command(commands, "warm", artifacts.warm, "fetch an artifact's files ahead of its first use")
    warming.add_argument("--artifact", metavar="NAME|KEY", required=True, help="as `cachekit ls --artifacts` prints it")
    _add_run(commands)
    _add_ipfs(commands)
    return parser


def _add_run(commands: Any) -> None:
    running = _command(commands, "run", cli_run.run, "run a command once: its output and its files are kept")
    running.add_argument("--input", action="append", default=[], metavar="PATH", help="counts by content; may repeat")
    running.add_argument("--output", action="append", default=[], metavar="PATH", help="what it makes; may repeat")
    running.add_argument(
        "--env", action="append", default=[], metavar="NAME", help="a variable that counts; may repeat"
    )
    running.add_argument(
        "--ttl", default=None, metavar="TIME", help="how long the outcome is good; for ever by default"
    )
    running.add_argument("--pin", action="store_true", help="keep it in IPFS until unpinned")
    running.add_argument("command", nargs=argparse.REMAINDER, metavar="-- COMMAND", help="and its arguments")


def _add_ipfs(commands: Any) -> None:
    _command(commands, "flush", cli_node.flush, "upload what is queued, and wait for it").add_argument(
        "--timeout", type=_seconds, default=None, metavar="SECONDS", help="how long to wait at most; 60 by default"
    )
    _command(commands, "sync", cli_node.sync, "pull what other writers published")
    _command(commands, "pins", _pins, "what is pinned in IPFS, by reference")
    _command(commands, "unpin", cli_node.unpin, "give up the references to a CID, or a key's").add_argument(
        "subject", metavar="CID|KEY|NAME", help="as `cachekit pins`, `cachekit ls` and `ls --artifacts` print them"
    )
    storing = _command(commands, "store", cli_node.store, "put a file into IPFS, unencrypted; prints the CID")
    storing.add_argument("path", metavar="PATH", help="the file; `-` is standard input")
    storing.add_argument("--pin", action="store_true", help="keep it until `cachekit unpin`")
    fetching = _command(commands, "fetch", cli_node.fetch, "the verified bytes of a CID, to standard output")
    fetching.add_argument("cid", metavar="CID", help="as `cachekit store` and `cachekit pins` print it")
    fetching.add_argument("-o", "--output", metavar="PATH", help="to this file instead")
    node = commands.add_parser("node", help="a private Kubo of this machine", allow_abbrev=False)
    parts = node.add_subparsers(metavar="ACTION", required=True)
    _command(parts, "install", cli_node.install, "find, download or build Kubo")
    _command(parts, "start", cli_node.start, "start the private node").add_argument(
        "--socket", action="store_true", help="on a unix socket instead of a loopback port"
    )
    _command(parts, "stop", cli_node.stop, "end the private node")
    _command(parts, "status", cli_node.status, "whether the private node runs and answers")


def _command(
    commands: Any, name: str, run: Callable[[argparse.Namespace], Answer], text: str
) -> argparse.ArgumentParser:
    parser: argparse.ArgumentParser = commands.add_parser(name, help=text, description=text, allow_abbrev=False)
    parser.add_argument("--json", action="store_true", help="print JSON")
    parser.set_defaults(run=run, parser=parser)
    return parser


def _key(parser: argparse.ArgumentParser, nargs: str | None = None) -> None:
    parser.add_argument("key", nargs=nargs, metavar="KEY", help="<namespace>/<hex>; the beginning of the hex may do")


def _seconds(text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = -1.0
    if not 0 <= value < float("inf"):
        raise argparse.ArgumentTypeError(f"{text!r} is not a number of seconds")
    return value


def _pins(options: argparse.Namespace) -> Answer:
    answer = cli_node.pins(options)
    shared = library.default().shared
    state = None if shared is None else shared.state()
    if state is None or state.on:
        return answer
    print(f"cachekit: only what is known here: {unanswered(state.reason)}", file=sys.stderr)
    return replace(answer, status=NO)


# -- removing -----------------------------------------------------------------------------------------------------


def _invalidate(options: argparse.Namespace) -> Answer:
    said = (options.tag, options.namespace)
    if (options.key is None) == (said == (None, None)):
        raise UsageError("`cachekit invalidate` takes a KEY, or --tag, or --namespace, or a tag of a namespace")
    # An empty word or `*` would cover more than anybody means by it.
    if "" in said or options.namespace == EVERYWHERE:
        raise UsageError("--tag and --namespace take a name that is not empty and not '*'")
    if options.key is None:
        return _removed(operations.invalidate(tag=options.tag, namespace=options.namespace))
    key = find_key(library.default(), options.key)
    return no_such(options.key) if key is None else _removed(operations.invalidate(key=key))


def _removed(removed: bool) -> Answer:
    text = "removed" if removed else "nothing was there to remove"
    return Answer({"removed": removed}, text, YES if removed else NO)


def _clear(options: argparse.Namespace) -> Answer:
    name = library.default().settings.namespace
    if not options.yes:
        if options.json or not sys.stdin.isatty():
            raise UsageError(
                f"`cachekit clear` ends every hit of namespace {name!r}; say --yes where nobody can answer"
            )
        if input(f"End every hit of namespace {name!r}, for everybody who shares it? [y/N] ").lower() not in (
            "y",
            "yes",
        ):
            return Answer({"removed": False}, "nothing was changed", NO)
    return _removed(operations.clear())


def _gc(_options: argparse.Namespace) -> Answer:
    disk_of(library.default())
    dropped = operations.gc()
    text = (
        f"{dropped['dropped']} entries and {dropped['artifacts']} artifacts dropped, {dropped['leftovers']} leftovers"
    )
    return Answer(dropped, text)
