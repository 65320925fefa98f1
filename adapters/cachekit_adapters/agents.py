"""Agents on the command line: `claude -p`, `codex exec`, `gemini -p` and `llm`, asked once.

from cachekit_adapters import agents

done = agents.run(["claude", "-p", "what does this do?", "--model", "sonnet"], files=["main.py"], account="team")

What an agent reads by itself is not seen: declare it by `files`. One that goes on with an earlier session, and one that
may change something, passes the cache by, and is counted.
"""

from __future__ import annotations

import re
import subprocess
from collections.abc import Iterable, Sequence
from typing import Any, Final

from cachekit_adapters.command import Preset, StrPath, Verdict, Words, preset_of, words_of
from cachekit_adapters.command import run as run_it

TTL: Final = "24h"
"""How long an answer is good, unless it is said."""
_MENTIONED: Final = re.compile(r"(?:^|\s)@([^\s'\"]+)")
_HARMLESS: Final = frozenset({"Read", "Grep", "Glob", "LS", "NotebookRead", "TodoWrite"})
"""Tools of claude that change nothing, and look at nothing but files."""


def run(
    argv: Sequence[StrPath],
    *,
    input: bytes | str | None = None,
    files: Iterable[StrPath] = (),
    account: str = "",
    ttl: Any = TTL,
    **keywords: Any,
) -> subprocess.CompletedProcess[Any]:
    """`command.run` for one of these agents: model, prompt, standard input and `files` are in the key.

    Files that the prompt mentions as `@path`, attachments, and the files of instructions and settings that the agent reads
    here and in the home directory count too. `account` says who is logged in, where that matters. What was streamed is
    replayed as it came. Raises UsageError for another program.
    """
    return run_it(
        argv, input=input, inputs=files, account=account, ttl=ttl, preset=preset_of(argv, PRESETS), **keywords
    )


def _claude(arguments: Sequence[str]) -> Verdict:
    taking = (
        *("--model", "--output-format", "--input-format", "--append-system-prompt", "--system-prompt", "--max-turns"),
        *(
            "--permission-mode",
            "--allowedTools",
            "--allowed-tools",
            "--disallowedTools",
            "--tools",
            "--settings",
            "--agents",
        ),
        *(
            "--add-dir",
            "--mcp-config",
            "--resume",
            "-r",
            "--session-id",
            "--fallback-model",
            *("--json-schema", "--betas", "--permission-prompt-tool", "--plugin-dir"),
            *("--system-prompt-file", "--append-system-prompt-file"),
        ),
    )
    words = words_of(arguments, taking)
    if words.has("-c", "--continue", "-r", "--resume", "--fork-session", "--from-pr", "--session-id", "--teleport"):
        return Verdict("session")
    if not words.has("-p", "--print"):
        return Verdict("interactive")
    names = ("--allowedTools", "--allowed-tools")
    allowed = " ".join(
        [*(value for name in names for value in words.options.get(name, [])), *_after(arguments, *names)]
    )
    tools = set(re.findall(r"[A-Za-z]\w*", re.sub(r"\([^)]*\)", "", allowed)))
    modes = set(words.options.get("--permission-mode", []))
    free = words.has(
        *("--dangerously-skip-permissions", "--allow-dangerously-skip-permissions", "--permission-prompt-tool"),
        *("--mcp-config", "--plugin-dir", "-w", "--worktree", "--chrome", "--init"),
    )
    if free or tools - _HARMLESS or modes & {"acceptEdits", "bypassPermissions", "auto"}:
        return Verdict("side_effecting")
    read = ("--settings", "--system-prompt-file", "--append-system-prompt-file")
    return _asked(words, *(value for name in read for value in words.options.get(name, [])))


def _after(arguments: Sequence[str], *names: str) -> list[str]:
    """What options of many values take: all words until the next option."""
    taken, inside = list[str](), False
    for word in arguments:
        if word.startswith("-"):
            inside = word in names
        elif inside:
            taken.append(word)
    return taken


def _codex(arguments: Sequence[str]) -> Verdict:
    taking = (
        *("-m", "--model", "-i", "--image", "-s", "--sandbox", "-p", "--profile", "-c", "--config", "-C", "--cd", "-a"),
        *("--ask-for-approval", "--color", "-o", "--output-last-message", "--output-schema", "--add-dir", "--enable"),
    )
    words = words_of(arguments, taking)
    if words.plain[:1] not in (("exec",), ("e",)):
        return Verdict("interactive")
    if words.plain[1:2] in (("resume",), ("fork",)) or words.has("--last"):
        return Verdict("session")
    sandbox = set(words.options.get("-s", []) + words.options.get("--sandbox", []))
    said = " ".join(words.options.get("-c", []) + words.options.get("--config", []))
    free = words.has(
        *("--full-auto", "--yolo", "--dangerously-bypass-approvals-and-sandbox", "--search", "--add-dir", "--enable"),
        *("-o", "--output-last-message"),  # a file that a hit would not write
    )
    if free or sandbox - {"read-only"} or re.search(r"sandbox|approval|search|mcp|profile", said):
        return Verdict("side_effecting")
    images = [path for name in ("-i", "--image") for value in words.options.get(name, []) for path in value.split(",")]
    return _asked(words, *images, *words.options.get("--output-schema", []))


def _gemini(arguments: Sequence[str]) -> Verdict:
    taking = (
        *(
            "-m",
            "--model",
            "-p",
            "--prompt",
            "-i",
            "--prompt-interactive",
            "--approval-mode",
            "-e",
            "--extensions",
            "-o",
        ),
        *(
            "--output-format",
            "--include-directories",
            "--allowed-tools",
            "--allowed-mcp-server-names",
            "-r",
            "--resume",
        ),
    )
    words = words_of(arguments, taking)
    if words.has("-r", "--resume", "--session-file", "--session-id"):
        return Verdict("session")
    if (words.plain[:1] and words.plain[0] in ("extensions", "hooks", "mcp", "skills")) or words.has(
        "--delete-session"
    ):
        return Verdict("not_a_prompt")
    if words.has("-i", "--prompt-interactive") or not (words.has("-p", "--prompt") or words.plain):
        return Verdict("interactive")
    modes = set(words.options.get("--approval-mode", []))
    free = words.has("-y", "--yolo", "--allowed-tools", "--policy", "--admin-policy", "-w", "--worktree")
    if free or modes - {"default", "plan"}:
        return Verdict("side_effecting")
    return _asked(words)


_LLM_COMMANDS: Final = frozenset(
    {
        *(
            "aliases",
            "chat",
            "collections",
            "embed",
            "embed-models",
            "embed-multi",
            "fragments",
            "install",
            "keys",
            "logs",
        ),
        *("models", "openai", "plugins", "schemas", "similar", "templates", "tools", "uninstall"),
    }
)


def _llm(arguments: Sequence[str]) -> Verdict:
    taking = (
        *(
            "-m",
            "--model",
            "-s",
            "--system",
            "-a",
            "--attachment",
            "-t",
            "--template",
            "-f",
            "--fragment",
            "--key",
            "-q",
        ),
        *(
            "--sf",
            "--system-fragment",
            "--schema",
            "--cid",
            "--conversation",
            "-d",
            "--database",
            "-T",
            "--tool",
            "--cl",
        ),
        *("--functions", "--chain-limit", "--query", "--save", "--schema-multi"),
    )
    words = words_of(_without_pairs(arguments), taking)
    if words.has("-c", "--continue", "--cid", "--conversation"):
        return Verdict("session")
    if words.plain[:1] and words.plain[0] in _LLM_COMMANDS:
        return Verdict("interactive" if words.plain[0] == "chat" else "not_a_prompt")
    if words.has("-T", "--tool", "--functions", "--save"):
        return Verdict("side_effecting")
    read = ("-a", "--attachment", "-f", "--fragment", "--sf", "--system-fragment", "--schema", "--functions")
    fragments = [value for name in read for value in words.options.get(name, [])]
    if any("://" in value or re.match(r"[a-z]+:", value) for value in fragments) or words.has("-t", "--template", "-q"):
        return Verdict("elsewhere")  # a URL, a plugin's loader, a template: what they hold now is not seen
    return _asked(words, *fragments)


def _without_pairs(arguments: Sequence[str]) -> list[str]:
    """Without `-o NAME VALUE` and `-p NAME VALUE`, options of two words."""
    kept: list[str] = []
    rest = iter(arguments)
    for word in rest:
        if word in ("-o", "--option", "-p", "--param"):
            next(rest, "")
            next(rest, "")
        elif word in ("--at", "--attachment-type"):
            kept += ["-a", next(rest, "")]
            next(rest, "")
        else:
            kept.append(word)
    return kept


def _asked(words: Words, *files: str) -> Verdict:
    """A prompt: the files that it names as `@path` count, and those that options name."""
    said = [*words.plain, *(value for values in words.options.values() for value in values)]
    mentioned = [path.rstrip(".,;:!?)") for text in said for path in _MENTIONED.findall(text)]
    return Verdict(ttl=TTL, inputs=tuple(dict.fromkeys((*files, *mentioned))))


PRESETS: Final = {
    "claude": Preset(
        "agents.claude",
        _claude,
        env=(
            *("ANTHROPIC_MODEL", "ANTHROPIC_BASE_URL", "ANTHROPIC_SMALL_FAST_MODEL", "CLAUDE_CODE_USE_BEDROCK"),
            *("CLAUDE_CODE_USE_VERTEX", "MAX_THINKING_TOKENS", "CLAUDE_CODE_MAX_OUTPUT_TOKENS", "CLAUDE_CONFIG_DIR"),
        ),
        settings=(
            *("CLAUDE.md", "CLAUDE.local.md", ".claude/settings.json", ".claude/settings.local.json", ".mcp.json"),
            *("~/.claude/CLAUDE.md", "~/.claude/settings.json"),
        ),
    ),
    "codex": Preset(
        "agents.codex",
        _codex,
        env=("OPENAI_BASE_URL", "CODEX_HOME"),
        settings=(
            "AGENTS.md",
            "AGENTS.override.md",
            ".codex/config.toml",
            "~/.codex/config.toml",
            "~/.codex/AGENTS.md",
        ),
    ),
    "gemini": Preset(
        "agents.gemini",
        _gemini,
        env=(
            "GEMINI_MODEL",
            "GOOGLE_GEMINI_BASE_URL",
            "GOOGLE_CLOUD_PROJECT",
            "GOOGLE_CLOUD_LOCATION",
            "GEMINI_SYSTEM_MD",
        ),
        settings=("GEMINI.md", ".gemini/settings.json", "~/.gemini/settings.json", "~/.gemini/GEMINI.md"),
    ),
    "llm": Preset(
        "agents.llm",
        _llm,
        env=("LLM_MODEL", "LLM_USER_PATH", "OPENAI_BASE_URL", "LLM_LOAD_PLUGINS"),
        settings=tuple(
            f"~/.config/io.datasette.llm/{name}"
            for name in ("default_model.txt", "aliases.json", "extra-openai-models.yaml", "model_options.json")
        ),
    ),
}
"""By the program's name."""
