"""Blocking and asynchronous clients behind one flow: what they raise is their own, and what they opened is closed."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable, Iterator
from typing import Any

import pytest

import cachekit
from cachekit_adapters import tgi, wrap
from cachekit_adapters._wire.flows import Flow, changed, method

httpx = pytest.importorskip("httpx")

URL = "http://tgi.example/generate"
ASKED = {"inputs": "Say something."}


def ask(transport: Any, *, is_async: bool, stream: bool = False) -> Any:
    """The status of a wrapped client's POST; `stream` asks for the response before its body is read."""

    def blocking() -> Any:
        with httpx.Client(transport=transport) as bare:
            client = wrap(bare, adapter=tgi.GENERATE)
            return client.send(client.build_request("POST", URL, json=ASKED), stream=stream).status_code

    async def awaited() -> Any:
        async with httpx.AsyncClient(transport=transport) as bare:
            client = wrap(bare, adapter=tgi.GENERATE)
            return (await client.send(client.build_request("POST", URL, json=ASKED), stream=stream)).status_code

    return asyncio.run(awaited()) if is_async else blocking()


class Body(httpx.SyncByteStream, httpx.AsyncByteStream):  # type: ignore[name-defined,misc]
    """A body that breaks off with `error`, and whether it was closed."""

    def __init__(self, error: BaseException) -> None:
        self.error, self.closed = error, False

    def __iter__(self) -> Iterator[bytes]:
        yield b'{"generated'
        raise self.error

    async def __aiter__(self) -> AsyncIterator[bytes]:
        yield b'{"generated'
        raise self.error

    def close(self) -> None:
        self.closed = True

    async def aclose(self) -> None:
        self.closed = True


@pytest.mark.parametrize("is_async", [False, True])
@pytest.mark.parametrize("kind", [OSError, KeyboardInterrupt])
def test_an_exception_is_the_client_s_own(is_async: bool, kind: Any) -> None:
    """The very object that the client raised reaches the caller, with where it came from; nothing is stored."""
    error = kind("the client's own")

    def refuse(_request: Any) -> Any:
        raise error

    with pytest.raises(kind) as raised:
        ask(httpx.MockTransport(refuse), is_async=is_async)
    assert raised.value is error
    assert "refuse" in [entry.name for entry in raised.traceback]
    assert cachekit.stats().as_dict()["stores"] == 0


def test_a_stop_iteration_is_no_end_of_ours() -> None:
    """A client that raises StopIteration ends nothing but its call."""
    error = StopIteration("the client's own")

    def refuse(_request: Any) -> Any:
        raise error

    with pytest.raises(StopIteration) as raised:
        ask(httpx.MockTransport(refuse), is_async=False)
    assert raised.value is error


@pytest.mark.parametrize("is_async", [False, True])
@pytest.mark.parametrize("stream", [False, True])
def test_a_response_that_cannot_be_read_is_closed(is_async: bool, stream: bool) -> None:
    """The exception of its body passes, and the connection is given back."""
    body = Body(OSError("cut"))
    with pytest.raises(OSError, match="cut") as raised:
        ask(httpx.MockTransport(lambda _: httpx.Response(200, stream=body)), is_async=is_async, stream=stream)
    assert raised.value is body.error
    assert body.closed


def test_a_cancelled_reader_closes_its_response() -> None:
    """Cancelled while the body comes: CancelledError passes, and the connection is given back."""
    reading = asyncio.Event()

    class Slow(Body):
        async def __aiter__(self) -> AsyncIterator[bytes]:
            reading.set()
            await asyncio.Event().wait()
            yield b""

    body = Slow(OSError())

    async def main() -> None:
        async with httpx.AsyncClient(transport=httpx.MockTransport(lambda _: httpx.Response(200, stream=body))) as bare:
            client = wrap(bare, adapter=tgi.GENERATE)
            sent = client.send(client.build_request("POST", URL, json=ASKED), stream=True)
            task = asyncio.ensure_future(sent)
            await reading.wait()
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task

    asyncio.run(main())
    assert body.closed


@pytest.mark.parametrize("is_async", [False, True])
def test_the_server_s_word_is_asked_for_by_one(is_async: bool) -> None:
    """`version="server"`: an exception while the server is asked is no exception of the call, and is believed as well."""
    paths: list[str] = []

    def answer(request: Any) -> Any:
        paths.append(request.url.path)
        if request.url.path == "/info":
            raise OSError("no info")
        return httpx.Response(200, json={"generated_text": "x"})

    def both(call: Callable[[], Any]) -> list[Any]:
        return [call() for _ in range(2)]

    async def awaited(bare: Any) -> None:
        async with bare:
            for sent in both(lambda: wrapped.post(URL, json=ASKED)):
                assert (await sent).json() == {"generated_text": "x"}

    bare = (httpx.AsyncClient if is_async else httpx.Client)(transport=httpx.MockTransport(answer))
    wrapped = wrap(bare, adapter=tgi.GENERATE, version="server")
    if is_async:
        asyncio.run(awaited(bare))
    else:
        with contextlib.closing(bare):
            assert {response.status_code for response in both(lambda: wrapped.post(URL, json=ASKED))} == {200}
    assert paths == ["/info", "/generate", "/generate"]


def test_a_method_is_of_its_client_s_kind() -> None:
    """A coroutine function for an asynchronous client, and nothing is done before it is awaited."""
    done: list[str] = []

    def flow(name: str) -> Flow:
        done.append(name)
        return (yield cachekit.CallOrigin(origin=lambda: name))

    assert method(flow, is_async=False)("blocking").value == "blocking"
    waiting = method(flow, is_async=True)("awaited")
    assert (asyncio.iscoroutine(waiting), done) == (True, ["blocking"])
    waiting.close()


@pytest.mark.parametrize("is_async", [False, True])
def test_what_an_origin_gives_is_changed(is_async: bool) -> None:
    """`changed` applies a function to what is returned, or awaited."""

    async def three() -> int:
        return 3

    origin = changed(three if is_async else lambda: 3, str, is_async=is_async)
    assert (asyncio.run(origin()) if is_async else origin()) == "3"
