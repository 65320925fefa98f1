"""KServe v2 through tritonclient's two HTTP clients, at a real Triton and a real MLServer."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import pytest
from peers.fixtures import mlserver_peer, pytriton_peer  # noqa: F401 - fixtures, found by their names
from peers.servers import Server

from cachekit import Saving
from cachekit_adapters import ovms
from cachekit_adapters.ovms import wire
from cachekit_adapters.ovms.calls import call_of, endpoint

http = pytest.importorskip("tritonclient.http")
aio = pytest.importorskip("tritonclient.http.aio")
numpy = pytest.importorskip("numpy")

TENSORS = [
    ("BOOL", [True, False], "bool_"),
    ("UINT8", [0, 255], "uint8"),
    ("UINT16", [0, 65535], "uint16"),
    ("UINT32", [0, 2**32 - 1], "uint32"),
    ("UINT64", [0, 2**64 - 1], "uint64"),
    ("INT8", [-128, 127], "int8"),
    ("INT16", [-1, 2], "int16"),
    ("INT32", [-1, 2], "int32"),
    ("INT64", [-(2**63), 2], "int64"),
    ("FP16", [0.1, -0.0], "float16"),
    ("FP32", [0.1, 3e38], "float32"),
    ("FP64", [0.1, 1e300], "float64"),
    ("BYTES", [b"caf\xc3\xa9", b""], "object_"),
]


def tensor(name: str, array: Any, datatype: str, binary: bool) -> Any:
    given = http.InferInput(name, list(array.shape), datatype)
    return given.set_data_from_numpy(array, binary_data=binary)


def floats(*values: float) -> Any:
    return numpy.array([list(values)], numpy.float32)


def double(binary: bool = True, *values: float) -> dict[str, object]:
    given = tensor("x", floats(*(values or (1.5, 2.0))), "FP32", binary)
    return wire.identity("double", "", [given], [], None)


def asked(*args: Any, **kwargs: Any) -> dict[str, Any] | None:
    """What identifies a call of `infer`, None where it has no identity."""
    client = http.InferenceServerClient("127.0.0.1:9")
    call = call_of(client, endpoint(client), args, kwargs)
    client.close()
    return None if call is None else call.identity


@pytest.mark.parametrize(("datatype", "values", "kind"), TENSORS)
def test_both_forms_of_a_tensor_are_one(datatype: str, values: list[Any], kind: str) -> None:
    """JSON and binary are one identity, of the tensors and of the call that carries them; other values are not."""
    array = numpy.array(values, getattr(numpy, kind))
    other = numpy.array(values[::-1], getattr(numpy, kind))
    forms = [[tensor("x", array, datatype, binary)] for binary in (True, False)]
    told = [wire.identity("m", "1", form, None, {"a": 1}) for form in forms]
    assert told[0] == told[1]
    assert isinstance(told[0]["inputs"][0]["data"], bytes)  # type: ignore[index]
    assert told[0] != wire.identity("m", "1", [tensor("x", other, datatype, True)], None, {"a": 1})
    calls = [asked("m", form, "1", parameters={"a": 1}) for form in forms]
    assert calls[0] == calls[1] is not None
    assert calls[0] != asked("m", [tensor("x", other, datatype, True)], "1", parameters={"a": 1})


def test_bytes_are_told_apart() -> None:
    """Lengths stand before the elements: two texts are not their concatenation."""
    one, other = (
        wire.identity("m", "", [tensor("t", numpy.array(texts, object), "BYTES", False)], None, None)
        for texts in (["ab", "c"], ["a", "bc"])
    )
    assert one != other


def test_what_is_part_of_a_call() -> None:
    """Name, version, shape, outputs and parameters are; priority and timeout are not; a sequence has no identity."""
    given = [tensor("x", floats(1.5), "FP32", True)]
    plain = wire.identity("m", "1", given, None, None)
    assert plain == wire.identity("m", "1", given, (), {"priority": 3, "timeout": 5})
    flat = [tensor("x", floats(1.5)[0], "FP32", True)]
    classes = [http.InferRequestedOutput("y", class_count=2)]
    others = [
        wire.identity("n", "1", given, None, None),
        wire.identity("m", "2", given, None, None),
        wire.identity("m", "1", flat, None, None),
        wire.identity("m", "1", given, classes, None),
        wire.identity("m", "1", given, [http.InferRequestedOutput("y", binary_data=False)], None),
        wire.identity("m", "1", given, None, {"temperature": 1}),
    ]
    assert all(one != other for at, one in enumerate([plain, *others]) for other in others[at:])
    assert asked("m", given, sequence_id=0) == asked("m", given, sequence_start=True) is not None
    assert asked("m", given, sequence_id=7) is asked("m", given, sequence_id="seven") is None


def test_the_identity_is_the_moment_s() -> None:
    """A tensor or an output that is changed after the call does not change what was asked."""
    given, asked = tensor("x", floats(1.5), "FP32", True), http.InferRequestedOutput("y")
    told = wire.identity("m", "", [given], [asked], None)
    before = repr(told)
    given.set_data_from_numpy(floats(2.5))
    asked.set_shared_memory("region", 8)
    assert repr(told) == before


def test_sequences_and_shared_memory_are_not_cacheable() -> None:
    """A sequence moves the server's state on; what lies in shared memory is in neither request nor reply."""
    given, shared = tensor("x", floats(1.5), "FP32", True), http.InferInput("x", [1, 1], "FP32")
    shared.set_shared_memory("region", 4)
    told = http.InferRequestedOutput("y")
    assert wire.cacheable([given], [told])
    assert wire.cacheable([given], None, "")
    assert not wire.cacheable([given], None, 7)
    assert not wire.cacheable([shared], None)
    with pytest.raises(ValueError, match="shared memory"):
        wire.identity("m", "", [shared], None, None)
    told.set_shared_memory("region", 4)
    assert not wire.cacheable([given], [told])


def in_json(datatype: str, shape: list[int], data: object) -> dict[str, Any]:
    """The identity of one tensor whose `data` travels as it stands here."""
    given = http.InferInput("x", shape, datatype)
    given._data = data
    return wire.identity("m", "", [given], None, None)


def test_nested_json_is_the_flat_one() -> None:
    """The protocol allows both; the shape says which it is."""
    nested, flat, other = (
        in_json("INT32", shape, data)
        for shape, data in (([2, 2], [[1, 2], [3, 4]]), ([2, 2], [1, 2, 3, 4]), ([4], [1, 2, 3, 4]))
    )
    assert nested == flat != other


@pytest.mark.parametrize("data", [[1.5], [True], ["1"], [2**40], [None], {"a": 1}, "text"])
def test_what_no_server_takes_is_nobody_s_answer(data: object) -> None:
    """Data that does not fit its type is told as it is: never equal to a tensor that fits."""
    assert in_json("INT32", [1], data)["inputs"][0]["data"] == data


@pytest.mark.parametrize("inputs", [None, 1, [1], [{}], ["x"], [None]])
def test_a_call_that_is_no_request_is_refused(inputs: object) -> None:
    """What is no tensor of tritonclient has no identity, and goes to the server as it is."""
    assert asked("m", inputs) is None


def test_the_size_of_a_binary_tensor_is_no_part_of_it() -> None:
    """The bytes are what is asked; how many a tensor names, or that it names none, only says how they travel."""
    given, bare = (tensor("x", floats(1.5), "FP32", True) for _ in range(2))
    del bare._parameters["binary_data_size"]
    assert asked("m", [given]) == asked("m", [bare]) is not None


def same(one: Any, other: Any, *names: str) -> None:
    """Equal in all that the class shows."""
    assert type(one) is type(other)
    assert one.get_response() == other.get_response()
    for name in names:
        mine, its = one.as_numpy(name), other.as_numpy(name)
        assert (mine.dtype, mine.shape, mine.tolist()) == (its.dtype, its.shape, its.tolist())
        assert one.get_output(name) == other.get_output(name)
    assert other.as_numpy("nothing") is None


@pytest.mark.parametrize("binary", [True, False])
def test_triton_s_results_come_back(pytriton_peer: Server, binary: bool) -> None:  # noqa: F811
    """FP32, BYTES and two FP64 outputs, in both forms, are rebuilt equal to the live ones."""
    client = http.InferenceServerClient(pytriton_peer.address)
    pair = [tensor("a", numpy.array([1, 2]), "INT64", binary), tensor("b", numpy.array([0.5, 4.0]), "FP64", binary)]
    texts = tensor("text", numpy.array([["a", "bc"]], object), "BYTES", binary)
    calls = [
        ("double", [tensor("x", floats(1.5, 2.0), "FP32", binary)], ["y"]),
        ("upper", [texts], ["shouted"]),
        ("pair", pair, ["product", "sum"]),
    ]
    for model, given, names in calls:
        asked = [http.InferRequestedOutput(name, binary_data=binary) for name in names]
        live = client.infer(model, given, outputs=asked)
        assert wire.judge(live) == ""
        assert wire.about(live) == {"model": model, "model_version": "1"}
        same(wire.rebuild(*wire.encode(live)), live, *names)
    client.close()


def test_a_result_bears_the_id_of_its_own_call(pytriton_peer: Server) -> None:  # noqa: F811
    """The id is the call's: another call's hit has that one's, or none, as a live answer would."""
    client = http.InferenceServerClient(pytriton_peer.address)
    given = [tensor("x", floats(1.5), "FP32", True)]
    first, second, bare = (client.infer("double", given, request_id=name) for name in ("one", "two", ""))
    stored = wire.encode(first, "one")
    assert stored == wire.encode(second, "two") == wire.encode(bare)
    same(wire.rebuild(*stored, "two"), second, "y")
    same(wire.rebuild(*stored), bare, "y")
    client.close()


def test_mlserver_s_results_come_back(mlserver_peer: Server) -> None:  # noqa: F811
    """A server that knows JSON only, and gives each answer an id of its own."""
    client = http.InferenceServerClient(mlserver_peer.address)
    asked = [http.InferRequestedOutput("y", binary_data=False)]
    live = client.infer("double", [tensor("x", floats(1.5), "FP32", False)], outputs=asked)
    assert wire.judge(live) == ""
    assert wire.about(live) == {"model": "double", "model_version": "v1"}
    same(wire.rebuild(*wire.encode(live)), live, "y")
    client.close()


def test_the_asyncio_client_s_results_come_back(pytriton_peer: Server, mlserver_peer: Server) -> None:  # noqa: F811
    """Its calls have the blocking client's identity, and its results are of the same class."""
    given = aio.InferInput("x", [1, 2], "FP32").set_data_from_numpy(floats(1.5, 2.0), binary_data=False)
    assert wire.identity("double", "", [given], [], None) == double()

    async def infer(address: str) -> Any:
        async with aio.InferenceServerClient(address) as client:
            asked = [aio.InferRequestedOutput("y", binary_data=False)]
            # Unlike the blocking client's, its requests say that they are octets, which MLServer does not read as JSON.
            return await client.infer("double", [given], outputs=asked, headers={"Content-Type": "application/json"})

    for peer in (pytriton_peer, mlserver_peer):
        live = asyncio.run(infer(peer.address))
        same(wire.rebuild(*wire.encode(live)), live, "y")


def result(told: Any, buffer: bytes = b"") -> Any:
    header = json.dumps(told).encode()
    return http.InferResult.from_response_body(header + buffer, header_length=len(header) if buffer else None)


def output(size: int | None) -> dict[str, Any]:
    told: dict[str, Any] = {"name": "y", "datatype": "FP32", "shape": [1]}
    return {**told, "data": [1.5]} if size is None else {**told, "parameters": {"binary_data_size": size}}


@pytest.mark.parametrize(
    ("told", "buffer", "reason"),
    [
        ({"outputs": [output(None)]}, b"", ""),
        ({"outputs": [output(4)]}, b"1234", ""),
        ({"outputs": [output(4)]}, b"123", "incomplete"),
        ({"outputs": [output(4), output(4)]}, b"1234", "incomplete"),
        ({"outputs": [{"name": "y", "datatype": "FP32", "shape": [1]}]}, b"", "incomplete"),
        ({"outputs": []}, b"", "incomplete"),
        ({}, b"", "incomplete"),
        ({"error": "no"}, b"", "error_in_200"),
        ({"outputs": [1]}, b"", "incomplete"),
        ({"outputs": [{"data": [1.5]}]}, b"", "incomplete"),
        ({"outputs": [{**output(None), "parameters": [1]}]}, b"", "incomplete"),
        ({"outputs": {"y": 1}}, b"", "incomplete"),
        ([], b"", "incomplete"),
    ],
)
def test_which_results_are_stored(told: Any, buffer: bytes, reason: str) -> None:
    """Every output with all of its data."""
    assert wire.judge(result(told, buffer)) == reason


def test_a_stored_result_cut_anywhere_is_a_miss() -> None:
    """Whatever is left of an entry, it is refused, not half a tensor."""
    data, length = wire.encode(result({"model_name": "m", "outputs": [output(4)]}, b"1234"))
    assert wire.rebuild(data, length).as_numpy("y").tobytes() == b"1234"
    for end in range(len(data)):
        with pytest.raises(ValueError):
            wire.rebuild(data[:end], length)


@pytest.mark.parametrize(
    "header",
    [
        b"[" * 100_000,
        b"[]",
        b"{}",
        b'{"outputs": 1}',
        b'{"outputs": [1]}',
        b'{"outputs": [{"parameters": {"binary_data_size": 0}}]}',
        b'{"outputs": [{"name": "y", "parameters": [1]}]}',
        b'{"outputs": [{"name": "y", "parameters": {"binary_data_size": 1e400}}]}',
        b"\xff",
    ],
)
def test_a_stored_result_of_another_kind_is_refused(header: bytes) -> None:
    """Nested too deep, of another shape, or no text: ValueError, as documented."""
    with pytest.raises(ValueError):
        wire.rebuild(header, len(header))


def test_nothing_is_sampled_or_counted() -> None:
    """The protocol has neither sampling nor tokens."""
    assert not ovms.INFER.sampled({})
    reply = ovms.INFER.capture(result({"model_name": "m", "outputs": [output(None)]}))
    assert reply is not None and reply.saving == Saving()
