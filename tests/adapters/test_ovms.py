"""A wrapped tritonclient, blocking and asyncio, at a real Triton and a real MLServer behind a relay that counts."""

from __future__ import annotations

import asyncio
import gc
import inspect
import json
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from peers import relay as relays
from peers import servers
from peers.fixtures import started
from peers.relay import relay
from peers.scripted import Reply, Request, Scripted, scripted_server
from peers.servers import Server

import cachekit
from cachekit import CacheMiss, UsageError, distributed_cache, stats
from cachekit_adapters import ovms, wrap
from cachekit_adapters.ovms import calls as ovms_calls

http = pytest.importorskip("tritonclient.http")
aio = pytest.importorskip("tritonclient.http.aio")
numpy = pytest.importorskip("numpy")
utils = pytest.importorskip("tritonclient.utils")

ANSWER = {"model_name": "m", "outputs": [{"name": "y", "datatype": "FP32", "shape": [1], "data": [3.0]}]}


@pytest.fixture
def triton(pytriton_peer: Server) -> Iterator[Scripted]:
    with relay(pytriton_peer.url) as server:
        yield server


@pytest.fixture
def connect() -> Iterator[Callable[..., Any]]:
    """Makes wrapped blocking clients of a server's URL, and closes them."""
    opened: list[Any] = []

    def connected(server: Scripted, **said: Any) -> Any:
        opened.append(wrap(http.InferenceServerClient(address(server)), **said))
        return opened[-1]

    yield connected
    for client in opened:
        client.close()


def address(server: Scripted) -> str:
    return server.url.removeprefix("http://")


def x(*values: float, binary: bool = True, kind: Any = None) -> list[Any]:
    array = numpy.array([list(values or (1.5, 2.0))], kind or numpy.float32)
    datatype = utils.np_to_triton_dtype(array.dtype)
    return [http.InferInput("x", list(array.shape), datatype).set_data_from_numpy(array, binary_data=binary)]


def in_json() -> list[Any]:
    return [http.InferRequestedOutput("y", binary_data=False)]


def ask_async(server: Scripted, *args: Any, **kwargs: Any) -> Any:
    async def asked() -> Any:
        async with aio.InferenceServerClient(address(server)) as client:
            return await wrap(client).infer(*args, **kwargs)

    return asyncio.run(asked())


def same(one: Any, other: Any, *names: str) -> None:
    """Equal in all that the class shows."""
    assert type(one) is type(other)
    assert one.get_response() == other.get_response()
    for name in names:
        mine, its = one.as_numpy(name), other.as_numpy(name)
        assert (mine.dtype, mine.shape, mine.tolist()) == (its.dtype, its.shape, its.tolist())
        assert mine.flags.writeable == its.flags.writeable
        assert one.get_output(name) == other.get_output(name)


# -- hits -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("binary", [True, False])
def test_a_hit_makes_no_request(triton: Scripted, connect: Any, binary: bool) -> None:
    """The second call's result is equal to the live one, in both forms of the answer, and nothing goes over the wire."""
    client, bare = connect(triton), http.InferenceServerClient(address(triton))
    outputs = [http.InferRequestedOutput("y", binary_data=binary)]
    live = bare.infer("double", x(), outputs=outputs)
    first = client.infer("double", x(), outputs=outputs)
    before = triton.count
    hit = client.infer("double", x(), outputs=outputs)
    assert triton.count == before == 2
    same(first, live, "y")
    same(hit, live, "y")
    bare.close()


def test_texts_and_several_outputs(triton: Scripted, connect: Any) -> None:
    """BYTES, and two outputs of a model that does not batch, are cached whole."""
    client = connect(triton)
    text = numpy.array([["a", "bc"]], object)
    calls = [
        ("upper", [http.InferInput("text", [1, 2], "BYTES").set_data_from_numpy(text)], ["shouted"]),
        (
            "pair",
            [
                http.InferInput("a", [2], "INT64").set_data_from_numpy(numpy.array([1, 2])),
                http.InferInput("b", [2], "FP64").set_data_from_numpy(numpy.array([0.5, 4.0])),
            ],
            ["sum", "product"],
        ),
    ]
    for model, inputs, names in calls:
        first, hit = client.infer(model, inputs), client.infer(model, inputs)
        same(hit, first, *names)
    assert triton.count == 2


def test_one_key_for_json_and_binary_sync_and_async(triton: Scripted, connect: Any) -> None:
    """However the tensors travel, and whichever client sends them, it is one question."""
    live = connect(triton).infer("double", x())
    hits = [
        connect(triton).infer("double", x(binary=False)),
        ask_async(triton, "double", x()),
        ask_async(triton, "double", inputs=x(binary=False), model_version=""),
    ]
    assert triton.count == 1
    for hit in hits:
        same(hit, live, "y")


def test_an_async_call_is_stored_for_blocking_ones(triton: Scripted, connect: Any) -> None:
    """And the other way round."""
    live = ask_async(triton, "double", x())
    same(connect(triton).infer("double", x()), live, "y")
    assert triton.count == 1


def test_mlserver(mlserver_peer: Server, connect: Any) -> None:
    """Another implementation, which knows JSON only and gives each answer an id of its own."""
    with relay(mlserver_peer.url) as server:
        client = connect(server)
        live = client.infer("double", x(binary=False), outputs=in_json())
        same(client.infer("double", x(binary=False), outputs=in_json()), live, "y")
        assert server.count == 1


def test_a_batch_is_one_answer(triton: Scripted, connect: Any) -> None:
    """KServe has no items: a batch hits as a whole, and a part of it is another question."""
    client = connect(triton)
    rows = numpy.ones((3, 2), numpy.float32)
    whole = [http.InferInput("x", [3, 2], "FP32").set_data_from_numpy(rows)]
    part = [http.InferInput("x", [1, 2], "FP32").set_data_from_numpy(rows[:1])]
    client.infer("double", whole), client.infer("double", whole), client.infer("double", part)
    assert triton.count == 2


def test_the_answer_s_version_is_kept(triton: Scripted, connect: Any) -> None:
    """Model and version of the answer are in the entry, for people."""
    reply = ovms.INFER.capture(connect(triton).infer("double", x()))
    assert reply is not None
    assert reply.about == {"model": "double", "model_version": "1"}


# -- keys -----------------------------------------------------------------------------------------------------------

NEUTRAL = [
    {"priority": 1},
    {"timeout": 5_000_000},
    {"request_compression_algorithm": "gzip"},
    {"response_compression_algorithm": "deflate"},
    {"headers": {"Authorization": "Bearer secret", "X-Api-Key": "secret", "traceparent": "00-1"}},
    {"sequence_start": True},
    {"parameters": {}},
]
OTHERS = [
    {"model_version": "1"},
    {"outputs": [http.InferRequestedOutput("y", binary_data=False)]},
    {"headers": {"Host": "other.example"}},
    {"headers": {"X-Tenant": "b"}},
    {"query_params": {"a": 1}},
    {"parameters": {"beam": 4}},
]


@pytest.mark.parametrize("said", NEUTRAL, ids=lambda said: next(iter(said)))
def test_what_does_not_change_the_answer(triton: Scripted, connect: Any, said: dict[str, Any]) -> None:
    """Carriage, credentials and scheduling do not make another question."""
    client = connect(triton)
    client.infer("double", x())
    assert client.infer("double", x(), **said).as_numpy("y").tolist() == [[3.0, 4.0]]
    assert triton.count == 1


@pytest.mark.parametrize("said", OTHERS, ids=lambda said: next(iter(said)))
def test_what_may_change_the_answer(triton: Scripted, connect: Any, said: dict[str, Any]) -> None:
    """Each of them is asked for, and then hits."""
    client = connect(triton)
    client.infer("double", x())
    client.infer("double", x(), **said), client.infer("double", x(), **said)
    assert triton.count == 2


def test_other_inputs_are_other_questions() -> None:
    """A value, a datatype, a shape, a model, an endpoint."""
    with (
        scripted_server(Reply(body=json.dumps(ANSWER).encode())) as server,
        scripted_server(Reply(body=json.dumps(ANSWER).encode())) as other,
    ):
        client, elsewhere = (wrap(http.InferenceServerClient(address(each))) for each in (server, other))
        asked = [("m", x()), ("m", x(1.5)), ("m", x(1.5, 2.5)), ("m", x(kind=numpy.float64)), ("n", x())]
        for _ in range(2):
            for model, inputs in asked:
                client.infer(model, inputs)
            elsewhere.infer("m", x())
        assert (server.count, other.count) == (len(asked), 1)
        client.close(), elsewhere.close()


def test_a_plugin_s_headers_count(triton: Scripted, connect: Any) -> None:
    """A plugin's credential is neutral, its tenant is not; it is the copy's own plugin."""
    client = connect(triton)
    sent = {"Authorization": "Basic one", "X-Tenant": "a"}
    client.register_plugin(lambda request: request.headers.update(sent))
    client.infer("double", x(), headers={})
    sent["Authorization"] = "Basic two"
    client.infer("double", x(), headers={})
    assert triton.count == 1
    sent["X-Tenant"] = "b"
    client.infer("double", x(), headers={})
    assert triton.count == 2
    assert triton.requests[-1].headers["x-tenant"] == "b"


def test_a_result_bears_the_id_of_its_own_call(triton: Scripted, connect: Any) -> None:
    """The id is neutral, and the hit has the one that a live answer would have."""
    client = connect(triton)
    assert client.infer("double", x(), request_id="one").get_response()["id"] == "one"
    assert client.infer("double", x(), request_id="two").get_response()["id"] == "two"
    assert "id" not in client.infer("double", x()).get_response()
    assert triton.count == 1


@pytest.mark.parametrize("sdk", [http, aio], ids=["http", "aio"])
def test_the_sdk_has_no_parameter_that_we_do_not_know(sdk: Any) -> None:
    """Fails when tritonclient adds one: decide then whether it changes the answer. Until then it is in the key."""
    assert tuple(inspect.signature(sdk.InferenceServerClient.infer).parameters)[1:] == ovms_calls.PLACES


# -- what is not cached ------------------------------------------------------------------------------------------------


def test_sequences_are_asked_each_time(triton: Scripted, connect: Any) -> None:
    """The server keeps a state for a sequence, and each call moves it on."""
    client = connect(triton)
    for _ in range(2):
        client.infer("double", x(), sequence_id=7, sequence_start=True, sequence_end=True)
    assert triton.count == 2


def test_async_infer_and_shared_memory_pass_through(triton: Scripted, connect: Any) -> None:
    """What lies in shared memory is not in the request; `async_infer` is the SDK's."""
    client = connect(triton)
    client.infer("double", x())
    assert client.async_infer("double", x()).get_result().as_numpy("y").tolist() == [[3.0, 4.0]]
    shared = http.InferInput("x", [1, 2], "FP32")
    shared.set_shared_memory("nowhere", 8)
    for _ in range(2):
        with pytest.raises(utils.InferenceServerException, match="nowhere"):
            client.infer("double", [shared])
    assert triton.count == 4


def test_errors_pass_untouched(triton: Scripted, connect: Any) -> None:
    """The server's refusal, and the SDK's own, are what the SDK alone would raise; nothing is stored."""
    client, bare = connect(triton), http.InferenceServerClient(address(triton))
    wrong: list[tuple[Any, Any]] = [
        (("nothing", x()), {}),
        (("double", x(kind=numpy.float64)), {}),
        (("double", x()), {"model_version": 1}),
        (("double", x()), {"parameters": {"priority": 1}}),
        (("double",), {}),
        (("double", x()), {"inputs": x()}),
        (("double", [1]), {}),
    ]
    for args, kwargs in wrong:
        raised = []
        for each in (bare, client, client):
            with pytest.raises(Exception) as error:
                each.infer(*args, **kwargs)
            raised.append((type(error.value), str(error.value).replace("infer()", "")))
        assert raised[0] == raised[1] == raised[2]
    bare.close()


@pytest.mark.parametrize(
    ("told", "reason"),
    [
        ({"error": "no"}, "error_in_200"),
        ({"outputs": []}, "incomplete"),
        ({"outputs": [{"name": "y"}]}, "incomplete"),
    ],
)
def test_what_is_no_whole_answer_is_not_stored(connect: Any, told: Any, reason: str) -> None:
    """The caller gets it as the SDK gives it, each time anew."""
    with scripted_server(Reply(body=json.dumps(told).encode())) as server:
        client = connect(server)
        for _ in range(2):
            assert client.infer("m", x()).get_response() == told
        assert server.count == 2
        assert stats().as_dict()["skipped"] == {reason: 2}


def test_what_is_no_answer_at_all_is_told_once(connect: Any) -> None:
    """A server that speaks something else: the caller gets it as the SDK gives it, and one warning."""
    with scripted_server(Reply(body=b"[1]")) as server:
        client = connect(server)
        with pytest.warns(UserWarning, match=r"no answer that ovms\.infer knows") as warned:
            told = [client.infer("m", x()).get_response() for _ in range(2)]
        assert (told, server.count, len(warned)) == ([[1], [1]], 2, 1)


def test_an_entry_that_cannot_be_rebuilt_is_a_miss(triton: Scripted, connect: Any, monkeypatch: Any) -> None:
    """The server is asked then, and the caller notices nothing."""
    client = connect(triton)
    live = client.infer("double", x())
    rebuild = ovms.wire.rebuild
    monkeypatch.setattr(ovms.wire, "rebuild", lambda *_args: rebuild(b"{", 2))
    same(client.infer("double", x()), live, "y")
    assert triton.count == 2


# -- the client -----------------------------------------------------------------------------------------------------


def test_the_client_keeps_its_class(triton: Scripted, connect: Any) -> None:
    """isinstance holds, the signature too, and the client that was passed in is still not cached."""
    bare = http.InferenceServerClient(address(triton))
    client = wrap(bare)
    assert isinstance(client, http.InferenceServerClient)
    assert inspect.signature(client.infer) == inspect.signature(bare.infer)
    assert client.is_server_live()
    assert client.get_model_metadata("double")["name"] == "double"
    before = triton.count
    for _ in range(2):
        client.infer("double", x())
        bare.infer("double", x())
    assert triton.count == before + 3
    bare.close()


def test_neither_client_s_end_closes_the_other_s_connections(triton: Scripted) -> None:
    """tritonclient closes when it is collected: the pool lives as long as one of both does."""
    bare = http.InferenceServerClient(address(triton))
    wrap(bare)
    gc.collect()
    bare.infer("double", x())
    client = wrap(bare)
    del bare
    gc.collect()
    client.infer("double", x(5.0))
    assert triton.count == 2
    client.close()


def test_closing_the_copy_closes_both(triton: Scripted) -> None:
    """They share the pool, so the client that was wrapped has nothing left to close when it is collected."""
    bare = http.InferenceServerClient(address(triton))
    with wrap(bare) as client:
        client.infer("double", x())
    assert bare._closed


def test_the_async_client_keeps_its_class(triton: Scripted) -> None:
    """The same for asyncio; concurrent callers of one question make one request."""

    async def asked() -> None:
        async with wrap(aio.InferenceServerClient(address(triton))) as client:
            assert isinstance(client, aio.InferenceServerClient)
            assert inspect.iscoroutinefunction(client.infer)
            results = await asyncio.gather(*[client.infer("double", x()) for _ in range(5)])
            assert all(each.as_numpy("y").tolist() == [[3.0, 4.0]] for each in results)

    asyncio.run(asked())
    assert triton.count == 1


def test_wrapping_again_says_the_policy_anew(triton: Scripted, connect: Any) -> None:
    """A wrapped client can be wrapped: the last word counts."""
    client = wrap(connect(triton), namespace="second")
    client.infer("double", x()), client.infer("double", x())
    connect(triton).infer("double", x())
    assert triton.count == 2


def test_what_wrap_refuses(triton: Scripted) -> None:
    """Refreshing in another thread with a client that is for one; a client that no HTTP one is."""
    bare = http.InferenceServerClient(address(triton))
    with pytest.raises(UsageError, match="another thread"):
        wrap(bare, stale_while_revalidate=60)
    with pytest.raises(UsageError, match="HTTP clients"):
        ovms.wrap(object())
    bare.close()


def test_a_function_of_one_s_own(triton: Scripted) -> None:
    """`adapter=ovms.INFER` caches what a function returns, as an InferResult."""
    bare = http.InferenceServerClient(address(triton))

    @distributed_cache(adapter=ovms.INFER, ignore="bare")
    def doubled(value: float, request_id: str = "") -> Any:
        return bare.infer("double", x(value))

    live = doubled(1.5)
    same(doubled(1.5, request_id="neutral"), live, "y")
    assert triton.count == 1
    doubled(2.5)
    assert triton.count == 2
    bare.close()


# -- the server's version -----------------------------------------------------------------------------------------------


class Deployed:
    """One endpoint before whichever server is deployed."""

    def __init__(self, url: str) -> None:
        self.url = url

    def __call__(self, request: Request) -> Reply:
        return relays._passed_on(self.url, request)


@pytest.fixture(scope="module")
def redeployed() -> Iterator[Server]:
    yield from started(servers.pytriton_server(version=2))


def infers(server: Scripted) -> int:
    return sum(request.path.endswith("/infer") for request in server.requests)


def version(result: Any) -> Any:
    return result.get_response()["model_version"]


def test_a_redeployed_model_misses(
    pytriton_peer: Server,
    redeployed: Server,
    connect: Any,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """`version="server"`: once the server tells of another version, the old answer is none."""
    deployed = Deployed(pytriton_peer.url)
    with scripted_server(deployed) as server:
        fixed, client = connect(server), connect(server, version="server")
        told = [version(each.infer("double", x())) for each in (fixed, client, client)]
        assert (told, infers(server), server.count) == (["1", "1", "1"], 2, 3)
        deployed.url = redeployed.url
        assert version(fixed.infer("double", x())) == "1"
        # What the server said holds for a minute; a live answer of another version ends that at once, and is not kept.
        assert version(client.infer("double", x())) == "1"
        assert version(client.infer("double", x(7.0))) == "2"
        assert stats().as_dict()["skipped"] == {"unexpected_version": 1}
        assert [version(client.infer("double", x())) for _ in range(2)] == ["2", "2"]
        assert infers(server) == 4
        # Without a surprise, the server's word ends with its minute.
        deployed.url = pytriton_peer.url
        monkeypatch.setattr(ovms, "METADATA_SECONDS", 1e-6)
        late = connect(server, version="server", namespace="late")
        assert [version(late.infer("double", x())) for _ in range(2)] == ["1", "1"]
        deployed.url = redeployed.url
        assert version(late.infer("double", x())) == "2"
        assert infers(server) == 6


def test_the_server_is_asked_once_a_minute(triton: Scripted, connect: Any) -> None:
    """Metadata are asked for once, not for every call; and by the asyncio client too."""
    client = connect(triton, version="server")
    for value in (1.0, 2.0, 1.0, 2.0):
        client.infer("double", x(value))
    assert (infers(triton), triton.count) == (2, 3)

    async def asked() -> Any:
        async with aio.InferenceServerClient(address(triton)) as other:
            return await wrap(other, version="server").infer("double", x(1.0))

    assert version(asyncio.run(asked())) == "1"
    assert triton.count == 3


def test_a_server_that_tells_no_version_is_asked_each_time(mlserver_peer: Server, connect: Any) -> None:
    """MLServer's metadata list none: nothing proves that the model is the same, so nothing is cached."""
    with relay(mlserver_peer.url) as server:
        client = connect(server, version="server")
        for _ in range(2):
            client.infer("double", x(binary=False), outputs=in_json())
        assert infers(server) == 2


def test_failing_metadata_do_not_fail_the_call(connect: Any) -> None:
    """The call goes to the server uncached."""

    def answer(request: Request) -> Reply:
        return Reply(body=json.dumps(ANSWER).encode()) if request.method == "POST" else Reply(500, b"oh")

    with scripted_server(answer) as server:
        client = connect(server, version="server")
        for _ in range(2):
            assert client.infer("m", x()).as_numpy("y").tolist() == [3.0]
        assert infers(server) == 2


def test_modes_hold_for_metadata(triton: Scripted, connect: Any) -> None:
    """Passing by asks nothing besides, and a replay asks nothing at all."""
    client = connect(triton, version="server")
    with cachekit.bypass():
        client.infer("double", x())
    assert triton.count == 1
    with cachekit.mode("replay"), pytest.raises(CacheMiss):
        client.infer("double", x())
    assert triton.count == 1
    client.infer("double", x())
    with cachekit.mode("replay"):
        client.infer("double", x())
    assert triton.count == 3
