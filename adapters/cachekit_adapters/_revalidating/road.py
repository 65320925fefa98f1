"""The road itself: a question whose answer is kept for its TTL, confirmed by its validator, or stood in for.

    road = Road("github.rest")
    answer = road.ask(Question({"path": "/repos/o/r"}, ttl=300, scope="github.com alice core"), send)

`send` takes headers for a conditional request and gives the service's Answer. Past the TTL a 304 renews what is kept.
Where the service fails or refuses for its rate limit, what is kept stands in, a day long unless said otherwise.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping
from typing import Any, Final, NamedTuple

import cachekit
from cachekit import Cached, UsageError, distributed_cache
from cachekit_adapters._revalidating import cooldowns
from cachekit_adapters._revalidating.answers import (
    Answer,
    RateLimited,
    Withheld,
    conditions,
    described,
    kept,
    merged,
    withheld,
)

Send = Callable[[Mapping[str, str]], Answer]
_STALE: Final = "1d"


class Question(NamedTuple):
    """What is asked. `identity` decides the answer and is the key; `scope` names whose rate limit it counts against.

    `area` and `host` become tags, in which a mutation ends hits; so does the road's name up to its dot.
    A `judge` may see more in an answer than its status:
    it gives the Answer that is meant, such as a 429 for a 200 that holds only errors.
    """

    identity: Mapping[str, Any]
    ttl: float
    scope: str
    area: str = ""
    host: str = ""
    judge: Callable[[Answer], Answer] = lambda answer: answer


class Asking:
    """One question under way; `replaced`: the service said something else than what was kept."""

    def __init__(self, question: Question, send: Send) -> None:
        self._question, self._send, self.replaced = question, send, False

    def __call__(self, old: Answer | None) -> Answer:
        """Asks the service. Raises Withheld where it gives no answer, RateLimited where it is not asked."""
        scope = self._question.scope
        if seconds := cooldowns.left(scope):
            raise RateLimited(scope, seconds)
        said = self._send({} if old is None else conditions(old))
        if said.status == 304 and old is not None:
            cooldowns.heed(scope, said)
            return merged(old, said.headers)
        answer = self._question.judge(said)
        cooldowns.heed(scope, answer)
        if withheld(answer):
            raise Withheld(answer)
        self.replaced = old is not None and not kept(answer)
        return described(answer) if answer.status == 200 else answer


class Road:
    """The answers of one service; `name` is what statistics call it, `keywords` are those of `distributed_cache`."""

    def __init__(self, name: str, **keywords: Any) -> None:
        self._name = name
        self._keywords = {"stale_if_error": _STALE, **keywords}
        self._readers: dict[float, Cached[Any, Answer]] = {}

    def ask(self, question: Question, send: Send) -> Answer:
        """What is kept, or what the service says: an answer that it withheld too, where nothing can stand in.

        Exceptions of `send` pass untouched. Raises RateLimited while the service is to be left alone.
        """
        reader, asking = self._reader(question.ttl), Asking(question, send)
        try:
            answer: Answer = reader(question.identity, asking, question.area, question.host)
        except Withheld as error:
            return error.answer
        if asking.replaced:  # what was kept is no longer so, and a later failure must not bring it back
            reader.invalidate(question.identity, asking, question.area, question.host)
        return answer

    def changing(self, tags: tuple[str, ...], act: Callable[[], Any]) -> Any:
        """What `act` gives, which changes the service: reads of `tags` are asked again, in every process.

        They end before it too: an invalidation that cannot be written is raised while nothing has happened yet.
        """
        _ended(tags)
        try:
            return act()
        finally:  # what failed may have happened all the same
            _ended(tags)

    def _reader(self, ttl: float) -> Cached[Any, Answer]:
        ttl = self._keywords.get("ttl", ttl)
        if ttl not in self._readers:
            policy = {**self._keywords, "ttl": ttl, "version": "1", "cacheable": kept, "previous": "old"}
            policy |= {"tags": (self._name.partition(".")[0], "{area}", "{host}"), "ignore": ("ask", "area", "host")}
            self._readers[ttl] = distributed_cache(**policy)(_named(self._name))
        return self._readers[ttl]


def _ended(tags: tuple[str, ...]) -> None:
    try:
        for tag in tags:
            cachekit.invalidate(tag=tag)
    except UsageError:
        if cachekit.current_mode() != "off":  # who has no cache is not kept from changing something
            raise


def _named(name: str) -> Callable[..., Answer]:
    def read(identity: Mapping[str, Any], ask: Asking, area: str, host: str, old: Answer | None = None) -> Answer:
        return ask(old)

    read.__module__, read.__name__, read.__qualname__ = "cachekit_adapters", name, name
    return read


@functools.cache
def road(name: str) -> Road:
    """The road of that name with its defaults, one in a process."""
    return Road(name)
