"""A plan driven by a script that answers its steps, with a request and records whose instants are made up."""

from __future__ import annotations

from typing import Any

from cachekit.model import NANOSECONDS, Key, Record
from cachekit.plan.steps import Request, Tell
from cachekit.values.codecs import codec_for

NOW = 1_000 * NANOSECONDS


def request(**changes: Any) -> Request:
    given: dict[str, Any] = {
        "key": Key("test", b"k" * 32, "tests.f"),
        "codec": codec_for("auto", lambda: None),
        "near": ("memory", "disk"),
        "far": ("ipfs",),
        "clock": lambda: NOW,
        "ttl": 60.0,
    }
    return Request(**{**given, **changes})


def record(payload: bytes = b"1", *, age: float = 0.0, ttl: float = 60.0) -> Record:
    created = NOW - int(age * NANOSECONDS)
    return Record("json", payload, created, created + int(ttl * NANOSECONDS), seconds=2.0)


class Script:
    """Drives a plan with prepared answers, by step type or by (type, tier), and remembers the steps."""

    def __init__(self, **answers: Any) -> None:
        self.answers = answers
        self.steps: list[Any] = []

    def answer(self, step: Any) -> Any:
        name = type(step).__name__.lower()
        given = self.answers.get(f"{name}_{getattr(step, 'tier', '')}", self.answers.get(name))
        if isinstance(given, list):
            given = given.pop(0) if given else None
        return given

    def run(self, steps: Any) -> Any:
        answer: Any = None
        while True:
            try:
                step = steps.throw(answer) if isinstance(answer, Exception) else steps.send(answer)
            except StopIteration as done:
                return done.value
            self.steps.append(step)
            answer = self.answer(step)

    def kinds(self) -> list[str]:
        return [type(step).__name__ for step in self.steps if not isinstance(step, Tell)]

    def told(self) -> list[tuple[str, str, str]]:
        return [(s.event.what, s.event.tier, s.event.reason) for s in self.steps if isinstance(s, Tell)]
