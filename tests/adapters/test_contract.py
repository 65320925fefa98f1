"""What an adapter promises: `check_adapter` finds each promise that is broken, and our own adapters keep them."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from cachekit import Adapter, Reply, UsageError, configure
from cachekit.cli import main
from cachekit.testing import check_adapter
from cachekit_adapters import claude, groq, openai, wrap


class Answer:
    """An SDK's answer that is equal by what it holds."""

    def __init__(self, text: str, finished: bool = True) -> None:
        self.text, self.finished = text, finished

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Answer) and self.text == other.text

    __hash__ = None  # type: ignore[assignment]


def _capture(answer: Answer) -> Reply:
    return Reply("plain", json.dumps([answer.text, answer.finished]).encode())


SOUND = Adapter(
    name="acme.complete",
    neutral=frozenset({"timeout"}),
    capture=_capture,
    restore=lambda reply, _streamed, _context: Answer(*json.loads(reply.body)),
    judge=lambda reply: "" if json.loads(reply.body)[1] else "truncated",
)
SHARED = Answer("hello")
COUNT = iter(range(1000))


def _spoiling(answer: Answer) -> Reply:
    reply = _capture(answer)
    answer.text += " spoilt"
    return reply


def _counting(answer: Answer) -> Reply:
    return Reply("plain", json.dumps([answer.text, answer.finished, next(COUNT)]).encode())


BROKEN: dict[str, tuple[Adapter, str]] = {
    "name": (replace(SOUND, name="acme"), "vendor.operation"),
    "neutral": (replace(SOUND, neutral=frozenset({"time out"})), "no argument"),
    "neutral prompt": (replace(SOUND, neutral=frozenset({"prompt"})), "two questions would share one"),
    "capture spoils": (replace(SOUND, capture=_spoiling), "changes it"),
    "capture differs": (
        replace(SOUND, capture=_counting),
        "other bytes",
    ),
    "capture refuses": (replace(SOUND, capture=lambda _answer: None), "worth keeping"),
    "restore": (replace(SOUND, restore=lambda *_: Answer("another")), "another answer"),
    "restore's type": (replace(SOUND, restore=lambda *_: "hello"), "gives a str"),
    "shared": (replace(SOUND, restore=lambda *_: SHARED), "one object"),
    "judge refuses": (replace(SOUND, judge=lambda _reply: "unwanted"), "'unwanted'"),
    "judge keeps": (replace(SOUND, judge=lambda _reply: ""), "useless answer 0 is kept"),
    "sampled": (replace(SOUND, sampled=lambda _arguments: 1), "True or False"),
    "secret": (replace(SOUND, capture=lambda a: replace(_capture(a), about={"key": "sk-1"})), "secret"),
}


def _checked(adapter: Adapter) -> None:
    check_adapter(
        adapter,
        lambda: Answer("hello"),
        arguments={"prompt": "x"},
        useless=[lambda: Answer("hel", False)],
        secrets=["sk-1"],
    )


def test_a_sound_adapter_passes() -> None:
    """Nothing is raised, and the caller's cache is what it was."""
    _checked(SOUND)


@pytest.mark.parametrize("broken", BROKEN)
def test_a_broken_promise_is_named(broken: str) -> None:
    """Each part that does what it must not is found, in a sentence about it."""
    adapter, sentence = BROKEN[broken]
    with pytest.raises(AssertionError, match=sentence):
        _checked(adapter)


CHAT = {"id": "1", "object": "chat.completion", "created": 1, "model": "m"}
MESSAGE = {"id": "1", "type": "message", "role": "assistant", "model": "m", "stop_sequence": None}
USAGE = {"prompt_tokens": 1, "completion_tokens": 1, "total_tokens": 2}


def _chat(kind: Callable[[], Any], reason: str) -> Any:
    choice = {"index": 0, "finish_reason": reason, "message": {"role": "assistant", "content": "hi"}}
    return kind().model_validate({**CHAT, "choices": [choice], "usage": USAGE})


def _groq() -> Any:
    from groq.types.chat import ChatCompletion

    return ChatCompletion


def _openai() -> Any:
    from openai.types.chat import ChatCompletion

    return ChatCompletion


def _claude(reason: str) -> Any:
    from anthropic.types import Message

    usage = {"input_tokens": 1, "output_tokens": 1}
    return Message.model_validate(
        {**MESSAGE, "content": [{"type": "text", "text": "hi"}], "stop_reason": reason, "usage": usage}
    )


OURS: dict[str, tuple[Adapter, Callable[[str], Any], str, str]] = {
    "groq": (groq.CHAT, lambda reason: _chat(_groq, reason), "stop", "length"),
    "openai": (openai.CHAT, lambda reason: _chat(_openai, reason), "stop", "length"),
    "claude": (claude.MESSAGES, _claude, "end_turn", "max_tokens"),
}


@pytest.mark.parametrize("vendor", OURS)
def test_our_own_adapters_keep_the_promises(vendor: str) -> None:
    """Chats of the SDKs, with one that was cut off beside them."""
    adapter, made, whole, cut = OURS[vendor]
    check_adapter(
        adapter,
        lambda: made(whole),
        arguments={"model": "m", "messages": [{"role": "user", "content": "x"}], "temperature": 0, "max_tokens": 5},
        useless=[lambda: made(cut)],
    )


@pytest.fixture
def installed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """A distribution of somebody else, with an entry point for the clients of `acme`."""
    info = tmp_path / "acme_cachekit-1.2.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: acme-cachekit\nVersion: 1.2\n")
    (info / "entry_points.txt").write_text("[cachekit.adapters]\nacme = acme_cachekit\n")
    (tmp_path / "acme_cachekit.py").write_text("def wrap(client, **keywords): return 'wrapped', client, keywords\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    yield
    sys.modules.pop("acme_cachekit", None)


def _client() -> Any:
    acme = ModuleType("acme.client")
    exec("class Client: pass", acme.__dict__)
    acme.Client.__module__ = "acme.client"
    return acme.Client()


def test_somebody_elses_adapter_wraps_its_clients(installed: None) -> None:
    """`wrap` finds it by the name of the client's package, and passes the keywords on."""
    client = _client()
    assert wrap(client, ttl="1h") == ("wrapped", client, {"ttl": "1h"})


def test_without_it_the_client_is_refused() -> None:
    """The error names what could be done instead."""
    with pytest.raises(UsageError, match="distributed_cache"):
        wrap(_client())


def test_doctor_lists_it(installed: None, own_cache: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """With its distribution and version, and without importing it."""
    with configure(ipfs="off"):
        main(["doctor"])
    assert "adapter: acme: acme_cachekit, of acme-cachekit 1.2" in capsys.readouterr().out
    assert "acme_cachekit" not in sys.modules
