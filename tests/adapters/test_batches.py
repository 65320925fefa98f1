"""Batches that are asked for at once: of each text one request tells the vector, whoever waits for it."""

from __future__ import annotations

import asyncio
import contextlib
import json
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

import httpx
import numpy
import openai
import pytest
from peers import shapes
from peers.scripted import Reply, Request, Scripted, scripted_server

import cachekit
from cachekit_adapters import tei, vectors, wrap

LONG = 30.0
"""Seconds after which a test has failed; nothing takes so long."""


class Held:
    """A server of embeddings that answers the first request when a test says so; `texts` are what each request asked."""

    def __init__(self, fails: bool = False) -> None:
        self.fails, self.lock, self.texts = fails, threading.Lock(), list[list[str]]()
        self.first, self.go = threading.Event(), threading.Event()

    def __call__(self, request: Request) -> Reply:
        asked = request.json()
        texts = asked["input"] if "input" in asked else asked["inputs"]
        numbers = self.of(texts if isinstance(texts, list) else [texts])
        if numbers is None:
            return Reply(400, b'{"error": {"message": "no"}}')
        return Reply(body=json.dumps(shapes.embeddings(numbers) if "input" in asked else numbers).encode())

    def of(self, texts: list[str]) -> list[list[float]] | None:
        with self.lock:
            self.texts.append(texts)
            leads = len(self.texts) == 1
        if leads:
            self.first.set()
            assert self.go.wait(LONG)
        return None if leads and self.fails else [[float(len(text)), float(ord(text[0]))] for text in texts]


Ask = Callable[[list[str]], "Future[list[list[float]]]"]


@contextlib.contextmanager
def openai_threads(server: Scripted) -> Iterator[Ask]:
    with openai.OpenAI(api_key="k", base_url=server.url, max_retries=0) as bare, ThreadPoolExecutor(16) as pool:
        client = wrap(bare)

        def ask(texts: list[str]) -> Any:
            answer = client.embeddings.create(model="m", input=texts, encoding_format="float")
            return [each.embedding for each in answer.data]

        yield lambda texts: pool.submit(ask, texts)


@contextlib.contextmanager
def tei_threads(server: Scripted) -> Iterator[Ask]:
    with httpx.Client(base_url=server.url, trust_env=False, timeout=LONG) as bare, ThreadPoolExecutor(16) as pool:
        client = wrap(bare, adapter=tei.EMBED)

        def ask(texts: list[str]) -> Any:
            return client.post("/embed", json={"inputs": texts}).raise_for_status().json()

        yield lambda texts: pool.submit(ask, texts)


@contextlib.contextmanager
def tasks(open_client: Callable[[str], Any], ask: Callable[[Any, list[str]], Any]) -> Iterator[Ask]:
    """Tasks of one loop, which runs on a thread of its own."""
    loop = asyncio.new_event_loop()
    thread = threading.Thread(target=loop.run_forever, daemon=True)
    thread.start()
    bare, client = open_client("")
    try:
        yield lambda texts: asyncio.run_coroutine_threadsafe(ask(client, texts), loop)
    finally:
        close = getattr(bare, "aclose", None) or bare.close
        asyncio.run_coroutine_threadsafe(close(), loop).result(LONG)
        loop.call_soon_threadsafe(loop.stop)
        thread.join()
        loop.close()


def openai_tasks(server: Scripted) -> Any:
    def open_client(_: str) -> Any:
        bare = openai.AsyncOpenAI(api_key="k", base_url=server.url, max_retries=0)
        return bare, wrap(bare)

    async def ask(client: Any, texts: list[str]) -> Any:
        answer = await client.embeddings.create(model="m", input=texts, encoding_format="float")
        return [each.embedding for each in answer.data]

    return tasks(open_client, ask)


def tei_tasks(server: Scripted) -> Any:
    def open_client(_: str) -> Any:
        bare = httpx.AsyncClient(base_url=server.url, trust_env=False, timeout=LONG)
        return bare, wrap(bare, adapter=tei.EMBED)

    async def ask(client: Any, texts: list[str]) -> Any:
        return (await client.post("/embed", json={"inputs": texts})).raise_for_status().json()

    return tasks(open_client, ask)


@pytest.fixture(params=[openai_threads, openai_tasks, tei_threads, tei_tasks])
def opened(request: pytest.FixtureRequest) -> Callable[[Scripted], contextlib.AbstractContextManager[Ask]]:
    return request.param  # type: ignore[no-any-return]


def sent(held: Held) -> list[str]:
    return sorted(text for texts in held.texts for text in texts)


def until(condition: Callable[[], bool]) -> None:
    for _ in range(3000):
        if condition():
            return
        threading.Event().wait(0.01)
    raise AssertionError("it did not come to that")


def test_a_text_under_way_is_not_sent_again(opened: Any) -> None:
    """The second batch sends what the first one did not, and gets the rest from it; each counts as what it was."""
    held = Held()
    with scripted_server(held) as server, opened(server) as ask:
        one = ask(["a", "bb"])
        assert held.first.wait(LONG)
        two = ask(["bb", "ccc"])
        until(lambda: len(held.texts) == 2)
        held.go.set()
        assert one.result(LONG) == [[1.0, 97.0], [2.0, 98.0]]
        assert two.result(LONG) == [[2.0, 98.0], [3.0, 99.0]]
    assert sent(held) == ["a", "bb", "ccc"]
    counted = cachekit.stats().as_dict()
    assert (counted["misses"], counted["coalesced"]) == (3, 1)


def test_a_crowd_of_batches_sends_each_text_once(opened: Any) -> None:
    """Batches that share texts with each other in a ring, in both orders: nobody waits for ever, nothing goes out twice."""
    held = Held()
    held.go.set()
    texts = [chr(97 + at) * (at + 1) for at in range(12)]
    with scripted_server(held) as server, opened(server) as ask:
        asked = [[texts[at], texts[(at + 1) % 12], texts[(at + 5) % 12]] for at in range(12)]
        asked += [list(reversed(each)) for each in asked]
        answers = [ask(each) for each in asked]
        for each, answer in zip(asked, answers, strict=True):
            assert answer.result(LONG) == [[float(len(text)), float(ord(text[0]))] for text in each]
    assert sent(held) == texts


def test_who_waits_for_a_batch_that_failed_sends_its_own(opened: Any) -> None:
    """The first batch's exception is its caller's alone: another text may be to blame."""
    held = Held(fails=True)
    with scripted_server(held) as server, opened(server) as ask:
        one = ask(["a", "bb"])
        assert held.first.wait(LONG)
        two = ask(["bb", "ccc"])
        until(lambda: len(held.texts) == 2)
        held.go.set()
        assert two.result(LONG) == [[2.0, 98.0], [3.0, 99.0]]
        with pytest.raises((openai.BadRequestError, httpx.HTTPStatusError)):
            one.result(LONG)
    assert sent(held) == ["a", "bb", "bb", "ccc"]


def test_a_batch_that_was_cancelled_hands_over() -> None:
    """Of those who wait for it one leads next: the text goes out once more, for all of them."""
    held = Held()
    with scripted_server(held) as server, openai_tasks(server) as ask:
        one = ask(["a", "bb"])
        assert held.first.wait(LONG)
        others = [ask(["bb", text]) for text in ("ccc", "dddd")]
        until(lambda: len(held.texts) == 3)
        one.cancel()
        for other in others:
            assert other.result(LONG)[0] == [2.0, 98.0]
        held.go.set()
    assert sent(held) == ["a", "bb", "bb", "ccc", "dddd"]


def test_without_any_store_the_answer_is_shared_all_the_same(opened: Any) -> None:
    """Read-only stores nothing; who waits gets what the other one was told."""
    held = Held()
    cachekit.configure(mode="read-only", memory_limit=0)
    with scripted_server(held) as server, opened(server) as ask:
        one = ask(["a", "bb"])
        assert held.first.wait(LONG)
        two = ask(["bb", "ccc"])
        until(lambda: len(held.texts) == 2)
        held.go.set()
        assert one.result(LONG)[1] == two.result(LONG)[0] == [2.0, 98.0]
    assert sent(held) == ["a", "bb", "ccc"]


def test_vectors_of_a_function() -> None:
    """`vectors.embed` likewise: a text that another thread's model is at work on is not given to the model again."""
    held = Held()

    @vectors.embed(version="1")
    def embed(texts: list[str]) -> Any:
        return numpy.array(held.of(texts))

    with ThreadPoolExecutor(2) as pool:
        one = pool.submit(embed, ["a", "bb"])
        assert held.first.wait(LONG)
        two = pool.submit(embed, ["bb", "ccc"])
        until(lambda: len(held.texts) == 2)
        held.go.set()
        assert one.result(LONG).tolist() == [[1.0, 97.0], [2.0, 98.0]]
        assert two.result(LONG).tolist() == [[2.0, 98.0], [3.0, 99.0]]
    assert sent(held) == ["a", "bb", "ccc"]


def test_two_batches_whose_models_ask_for_each_other_s_text_end() -> None:
    """One model needs the other's vector for its own, and the other way round: one of them goes on alone."""
    both = threading.Barrier(2)
    asked: list[str] = []

    @vectors.embed(version="1")
    def embed(texts: list[str]) -> Any:
        asked.extend(texts)
        other = {"a": "b", "b": "a"}[texts[0]]
        if len(asked) <= 2:
            both.wait(LONG)
            embed([other])
        return numpy.array([[float(ord(text))] for text in texts])

    with ThreadPoolExecutor(2) as pool:
        answers = [pool.submit(embed, [text]) for text in "ab"]
        assert [answer.result(LONG).tolist() for answer in answers] == [[[97.0]], [[98.0]]]
    assert sorted(asked[:2]) == ["a", "b"]
    assert len(asked) == 3


def test_a_model_that_asks_for_its_own_text_on_another_thread_ends() -> None:
    """The thread that it waits for does not wait for it."""
    asked: list[str] = []
    with ThreadPoolExecutor(1) as pool:

        @vectors.embed(version="1")
        def embed(texts: list[str]) -> Any:
            asked.extend(texts)
            if len(asked) == 1:
                pool.submit(embed, texts).result(LONG)
            return numpy.array([[1.0] for _ in texts])

        assert embed(["a"]).tolist() == [[1.0]]
    assert asked == ["a", "a"]
