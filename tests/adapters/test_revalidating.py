"""The road for answers that have validators: what a refusal is, how long it asks to wait, and what is kept."""

from __future__ import annotations

import threading
import time
from email.utils import formatdate

import pytest

from cachekit import CachekitError
from cachekit_adapters._revalidating import cooldowns
from cachekit_adapters._revalidating.answers import Answer, RateLimited, conditions, kept, limited, pause, withheld
from cachekit_adapters._revalidating.road import Question, Road
from cachekit_adapters._revalidating.tags import Tags

NOW = 1_000_000.0


def answer(status: int = 429, body: bytes = b"", **headers: str) -> Answer:
    return Answer(status, {name.replace("_", "-"): text for name, text in headers.items()}, body)


@pytest.mark.parametrize(
    ("said", "seconds"),
    [
        (answer(retry_after="30"), 30.0),
        (answer(retry_after=formatdate(NOW + 90, usegmt=True)), 90.0),
        (answer(retry_after=formatdate(NOW + 90, usegmt=True), date=formatdate(NOW + 60, usegmt=True)), 30.0),
        (answer(retry_after="soon"), None),
        (answer(x_ratelimit_reset=str(int(NOW) + 50)), 50.0),
        (answer(x_ratelimit_reset=str(int(NOW) + 50), date=formatdate(NOW + 20, usegmt=True)), 30.0),
        (answer(200, x_ratelimit_reset=str(int(NOW) + 50), x_ratelimit_remaining="0"), 50.0),
        (answer(200, x_ratelimit_reset=str(int(NOW) + 50), x_ratelimit_remaining="7"), None),
        (answer(200, x_ratelimit_reset=str(int(NOW) + 50)), None),
        (answer(ratelimit='"api";r=0;t=55'), 55.0),
        (answer(200, ratelimit='"api";r=10;t=55'), None),
        (answer(), None),
    ],
)
def test_how_long_a_service_wants_to_be_left_alone(said: Answer, seconds: float | None) -> None:
    """Seconds or a date, or a limit's reset, by the service's own clock where it tells the time."""
    assert pause(said, NOW) == seconds


@pytest.mark.parametrize(
    ("said", "is_limited", "is_withheld"),
    [
        (answer(429), True, True),
        (answer(403), False, False),
        (answer(403, retry_after="1"), True, True),
        (answer(403, x_ratelimit_remaining="0"), True, True),
        (answer(403, b'{"message": "You have exceeded a secondary rate limit"}'), True, True),
        (answer(500), False, True),
        (answer(404), False, False),
        (answer(200), False, False),
    ],
)
def test_what_is_no_answer(said: Answer, is_limited: bool, is_withheld: bool) -> None:
    """A rate limit or a failure says nothing about the question; a plain 403 and a 404 do."""
    assert (limited(said), withheld(said)) == (is_limited, is_withheld)


@pytest.mark.parametrize("seconds", ["999999999", "5000"])
def test_no_pause_is_longer_than_an_hour(seconds: str) -> None:
    """Then the service may say again how long."""
    cooldowns.heed(f"long {seconds}", answer(retry_after=seconds))
    assert 3500 < cooldowns.left(f"long {seconds}") <= 3600


def test_threads_are_refused_once() -> None:
    """Several refusals at the same time are one: the pause is a minute, not doubled by each."""
    threads = [threading.Thread(target=cooldowns.heed, args=("herd", Answer(429, {}, b""))) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert 50 < cooldowns.left("herd") <= 60


def test_pauses_double(monkeypatch: pytest.MonkeyPatch) -> None:
    """A minute, then twice as long for each refusal that follows, an hour at most; an answer ends that."""
    now, pauses = time.time(), []
    monkeypatch.setattr(cooldowns.time, "time", lambda: now)
    for _ in range(8):
        cooldowns.heed("double", Answer(429, {}, b""))
        pauses.append(round(cooldowns.left("double")))
        now += pauses[-1] + 1
    assert pauses == [60, 120, 240, 480, 960, 1920, 3600, 3600]
    cooldowns.heed("double", Answer(200, {}, b""))
    cooldowns.heed("double", Answer(429, {}, b""))
    assert round(cooldowns.left("double")) == 60


def test_by_the_date_where_there_is_no_tag() -> None:
    """An ETag is asked with, else the date of the last change, else nothing."""
    assert conditions(answer(200, etag='"1"', last_modified="x")) == {"If-None-Match": '"1"'}
    assert conditions(answer(200, last_modified="x")) == {"If-Modified-Since": "x"}
    assert conditions(answer(200)) == {}


def test_what_is_not_to_be_kept() -> None:
    """A 200 that is not told to be forgotten."""
    assert [kept(each) for each in (answer(200), answer(200, cache_control="private, No-Store"), answer(201))] == [
        True,
        False,
        False,
    ]


def test_the_first_refusal_is_told_and_the_next_question_is_not_asked() -> None:
    """Where nothing is kept a refusal comes back as it is; then RateLimited is raised, an error of cachekit."""
    road, asked = Road("test.road"), list[int]()

    def send(_: object) -> Answer:
        asked.append(1)
        return answer(429, b"slow down")

    question = Question({"path": "/a"}, 60, "somebody")
    assert road.ask(question, send).text == "slow down"
    with pytest.raises(CachekitError, match="left alone") as refused:
        road.ask(question, send)
    assert (len(asked), type(refused.value)) == (1, RateLimited)


def test_tags() -> None:
    """A change of one repository ends that and what reaches over several; one that may be anywhere ends the host, or all."""
    tags = Tags("github", "h")
    assert tags.changed(["O/r"]) == ("github:h/o/r", "github:h/*")
    assert tags.changed(["o/r", ""]) == tags.changed([]) == ("github:h",)
    assert Tags("github", "").changed(["o/r"]) == ("github",)
