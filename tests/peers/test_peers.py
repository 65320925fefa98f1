"""The peers answer the vendors' own SDKs: what the adapters' tests build on is there, and not by chance."""

from __future__ import annotations

import asyncio
import contextlib
import importlib
import os
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from peers import checksums, fixtures, servers, shapes
from peers.relay import relay
from peers.scripted import Reply, Scripted, scripted_server
from peers.servers import Server

ASK: Any = [{"role": "user", "content": "What is a cache good for?"}]
OTHER: Any = [{"role": "user", "content": "Who is at the door?"}]
TOOL: Any = {
    "type": "function",
    "function": {
        "name": "weather",
        "description": "The weather of a city",
        "parameters": {
            "type": "object",
            "properties": {"city": {"type": "string", "enum": ["Bern", "Oslo"]}},
            "required": ["city"],
            "additionalProperties": False,
        },
    },
}


Opened = Callable[[Any], Any]


@pytest.fixture
def opened() -> Iterator[Opened]:
    """Enter a client, which is left after the test: an SDK that is dropped leaves its sockets open."""
    with contextlib.ExitStack() as stack:
        yield stack.enter_context


def sdk(name: str) -> Any:
    """The SDK, or a skip; CI says with CACHEKIT_REQUIRE=peers that it must be there."""
    return importlib.import_module(name) if "peers" in fixtures.REQUIRED else pytest.importorskip(name)


# -- llama-server ------------------------------------------------------------------------------


def test_groq_sdk_gets_a_finished_answer(groq_peer: Server, opened: Opened) -> None:
    """Groq's paths under /openai; an answer ends by itself, and two questions have two answers."""
    client = opened(sdk("groq").Groq(api_key="k", base_url=groq_peer.url))
    one, again, other = (
        client.chat.completions.create(model="m", messages=asked, temperature=0) for asked in (ASK, ASK, OTHER)
    )
    assert one.choices[0].finish_reason == "stop"
    assert one.choices[0].message.content == again.choices[0].message.content != other.choices[0].message.content
    assert one.usage.completion_tokens > 1
    assert one.model == "cachekit-tiny"


def test_groq_sdk_streams_the_same_answer(groq_peer: Server, opened: Opened) -> None:
    """The chunks of the stream add up to the plain answer."""
    client = opened(sdk("groq").Groq(api_key="k", base_url=groq_peer.url))
    plain = client.chat.completions.create(model="m", messages=ASK, temperature=0)
    chunks = list(client.chat.completions.create(model="m", messages=ASK, temperature=0, stream=True))
    assert len(chunks) > 5
    assert "".join(c.choices[0].delta.content or "" for c in chunks if c.choices) == plain.choices[0].message.content


def test_groq_sdk_works_async(groq_peer: Server, opened: Opened) -> None:
    """The async client gets the sync client's answer."""
    groq = sdk("groq")

    async def ask() -> Any:
        async with groq.AsyncGroq(api_key="k", base_url=groq_peer.url) as client:
            return await client.chat.completions.create(model="m", messages=ASK, temperature=0)

    client = opened(groq.Groq(api_key="k", base_url=groq_peer.url))
    plain = client.chat.completions.create(model="m", messages=ASK, temperature=0)
    assert asyncio.run(ask()).choices == plain.choices


def test_anthropic_sdk_gets_a_message(llama_peer: Server, opened: Opened) -> None:
    """`/v1/messages` ends its turn; with too few tokens it says so."""
    client = opened(sdk("anthropic").Anthropic(api_key="k", base_url=llama_peer.url))
    message = client.messages.create(model="m", max_tokens=64, messages=ASK, extra_body={"temperature": 0})
    cut = client.messages.create(model="m", max_tokens=3, messages=ASK, extra_body={"temperature": 0})
    assert (message.stop_reason, cut.stop_reason) == ("end_turn", "max_tokens")
    assert message.content[0].text.startswith(cut.content[0].text)


def test_anthropic_sdk_streams_the_same_message(llama_peer: Server, opened: Opened) -> None:
    """The stream helper's final message is the plain one, and the stream ends with message_stop."""
    client = opened(sdk("anthropic").Anthropic(api_key="k", base_url=llama_peer.url))
    call: Any = {"model": "m", "max_tokens": 64, "messages": ASK, "extra_body": {"temperature": 0}}
    plain = client.messages.create(**call)
    with client.messages.stream(**call) as stream:
        kinds = [event.type for event in stream]
        final = stream.get_final_message()
    assert final.content[0].text == plain.content[0].text
    assert kinds[-1] == "message_stop"


def test_openai_sdk_streams_usage_when_asked(llama_peer: Server, opened: Opened) -> None:
    """`stream_options` brings the usage in a last chunk without choices."""
    client = opened(sdk("openai").OpenAI(api_key="k", base_url=f"{llama_peer.url}/v1"))
    chunks = list(
        client.chat.completions.create(
            model="m", messages=ASK, temperature=0, stream=True, stream_options={"include_usage": True}
        )
    )
    assert chunks[-1].usage.completion_tokens > 1
    assert [c.choices[0].finish_reason for c in chunks if c.choices][-1] == "stop"


def test_openai_sdk_gets_a_tool_call(llama_peer: Server, opened: Opened) -> None:
    """A forced tool call is well-formed, plain and streamed."""
    client = opened(sdk("openai").OpenAI(api_key="k", base_url=f"{llama_peer.url}/v1"))
    call: Any = {"model": "m", "messages": ASK, "temperature": 0, "tools": [TOOL], "tool_choice": "required"}
    choice = client.chat.completions.create(**call, max_tokens=300).choices[0]
    chunks = list(client.chat.completions.create(**call, max_tokens=300, stream=True))
    streamed = [part for c in chunks for part in c.choices[0].delta.tool_calls or []]
    assert choice.finish_reason == "tool_calls"
    assert choice.message.tool_calls[0].function.name == "weather"
    arguments = "".join(part.function.arguments or "" for part in streamed)
    assert arguments == choice.message.tool_calls[0].function.arguments


def test_openai_sdk_embeds(llama_peer: Server, opened: Opened) -> None:
    """A batch's vectors are those of its texts alone, to the last bits."""
    client = opened(sdk("openai").OpenAI(api_key="k", base_url=f"{llama_peer.url}/v1"))
    both = client.embeddings.create(model="m", input=["one text", "another"])
    alone = client.embeddings.create(model="m", input="another")
    assert [item.index for item in both.data] == [0, 1]
    assert both.data[1].embedding == pytest.approx(alone.data[0].embedding, abs=1e-5)
    assert both.data[0].embedding != both.data[1].embedding


def test_hugging_face_client_chats(
    llama_peer: Server, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, opened: Opened
) -> None:
    """The client made for TGI's chat route gets the same answer, whatever model name it sends."""
    monkeypatch.setenv("HF_HOME", str(tmp_path))
    client = opened(sdk("huggingface_hub").InferenceClient(base_url=llama_peer.url))
    answer = client.chat_completion(ASK, temperature=0)
    assert answer.choices[0].finish_reason == "stop"
    assert answer.choices[0].message.content


def test_rerank_has_the_shape_of_tei(llama_rerank_peer: Server) -> None:
    """With `texts` the reply is TEI's bare list, best first; with `documents` it is Cohere's."""
    httpx = sdk("httpx")
    body = {"query": "a quiet river", "texts": ["a stone", "a quiet river", "the sea"]}
    ranks = httpx.post(f"{llama_rerank_peer.url}/rerank", json=body).json()
    assert sorted(rank["index"] for rank in ranks) == [0, 1, 2]
    assert [rank["score"] for rank in ranks] == sorted((rank["score"] for rank in ranks), reverse=True)
    body = {"query": "a quiet river", "documents": ["a stone", "the sea"], "top_n": 1}
    [result] = httpx.post(f"{llama_rerank_peer.url}/v1/rerank", json=body).json()["results"]
    assert set(result) >= {"index", "relevance_score"}


# -- KServe ------------------------------------------------------------------------------------


def infer_input(module: Any, name: str, values: Any, datatype: str, binary: bool) -> Any:
    given = module.InferInput(name, list(values.shape), datatype)
    given.set_data_from_numpy(values, binary_data=binary)
    return given


@pytest.mark.parametrize("binary", [True, False])
def test_tritonclient_infers_at_triton(pytriton_peer: Server, binary: bool) -> None:
    """FP32, BYTES and INT64 with FP64, in both forms, and the model's version in the reply."""
    http, numpy = sdk("tritonclient.http"), sdk("numpy")
    client = http.InferenceServerClient(pytriton_peer.address)
    x = numpy.array([[1.5, 2.0], [3.0, 4.0]], numpy.float32)
    texts = numpy.array([["a", "bc"]], object)
    a, b = numpy.array([1, 2], numpy.int64), numpy.array([0.5, 4.0])
    asked = [http.InferRequestedOutput("y", binary_data=binary)]
    result = client.infer("double", [infer_input(http, "x", x, "FP32", binary)], outputs=asked)
    shouted = client.infer("upper", [infer_input(http, "text", texts, "BYTES", binary)]).as_numpy("shouted")
    inputs = [infer_input(http, "a", a, "INT64", binary), infer_input(http, "b", b, "FP64", binary)]
    assert (result.as_numpy("y") == x * 2).all()
    assert result.get_response()["model_version"] == "1"
    assert shouted.tolist() == [[b"A", b"BC"]]
    assert client.infer("pair", inputs).as_numpy("product").tolist() == [0.5, 8.0]
    client.close()


def test_tritonclient_aio_infers_at_both(pytriton_peer: Server, mlserver_peer: Server) -> None:
    """The asyncio client gets the same numbers from both servers."""
    aio, numpy = sdk("tritonclient.http.aio"), sdk("numpy")
    x = numpy.array([[1.5, 2.0]], numpy.float32)

    async def infer(address: str) -> Any:
        async with aio.InferenceServerClient(address) as client:
            asked = [aio.InferRequestedOutput("y", binary_data=False)]
            given = [infer_input(aio, "x", x, "FP32", False)]
            # Unlike the blocking client's, its requests say that they are octets, which MLServer does not read as JSON.
            headers = {"Content-Type": "application/json"}
            result = await client.infer("double", given, outputs=asked, headers=headers)
            return result.as_numpy("y").tolist()

    for peer in (pytriton_peer, mlserver_peer):
        assert asyncio.run(infer(peer.address)) == [[3.0, 4.0]]


def test_mlserver_takes_json_only(mlserver_peer: Server) -> None:
    """JSON works and names version and models; the binary form is refused."""
    http, numpy = sdk("tritonclient.http"), sdk("numpy")
    client = http.InferenceServerClient(mlserver_peer.address)
    x = numpy.array([[1.5]], numpy.float32)
    asked = [http.InferRequestedOutput("y", binary_data=False)]
    reply = client.infer("double", [infer_input(http, "x", x, "FP32", False)], outputs=asked).get_response()
    assert (reply["model_version"], reply["outputs"][0]["data"]) == ("v1", [3.0])
    with pytest.raises(sdk("tritonclient.utils").InferenceServerException):
        client.infer("double", [infer_input(http, "x", x, "FP32", True)])
    client.close()


# -- OPEA --------------------------------------------------------------------------------------


def test_opea_embeds_in_both_of_its_protocols(opea_peer: Server, opened: Opened) -> None:
    """OpenAI's request gets OpenAI's answer; a TextDoc gets an EmbedDoc with a random id each time."""
    httpx = sdk("httpx")
    openai = opened(sdk("openai").OpenAI(api_key="k", base_url=f"{opea_peer.url}/v1"))
    answer = openai.embeddings.create(model="m", input=["x", "y"], encoding_format="float")
    one, again = (httpx.post(f"{opea_peer.url}/v1/embeddings", json={"text": "x"}).json() for _ in range(2))
    assert one["embedding"] == again["embedding"] == answer.data[0].embedding
    assert one["id"] != again["id"]


def test_opea_chats_and_reranks(opea_peer: Server, opened: Opened) -> None:
    """Chat, plain and streamed, says the same; a rerank keeps the best."""
    client = opened(sdk("openai").OpenAI(api_key="k", base_url=f"{opea_peer.url}/v1"))
    plain = client.chat.completions.create(model="m", messages=OTHER)
    chunks = list(client.chat.completions.create(model="m", messages=OTHER, stream=True))
    body = {"input": "red fox", "retrieved_docs": ["blue sea", "a red fox"], "top_n": 1}
    reranked = sdk("httpx").post(f"{opea_peer.url}/v1/reranking", json=body).json()
    assert "".join(c.choices[0].delta.content or "" for c in chunks) == plain.choices[0].message.content
    assert chunks[-1].choices[0].finish_reason == plain.choices[0].finish_reason == "stop"
    assert [doc["text"] for doc in reranked["reranked_docs"]] == ["a red fox"]


# -- the stand-ins -----------------------------------------------------------------------------


def test_tei_stand_in_embeds_item_by_item(tei_peer: Scripted, opened: Opened) -> None:
    """A text's vector, prediction and score do not depend on what is beside it."""
    client = opened(sdk("httpx").Client(base_url=tei_peer.url))
    both = client.post("/embed", json={"inputs": ["one text", "another text"]}).json()
    assert client.post("/embed", json={"inputs": "another text"}).json() == both[1:]
    batch = client.post("/predict", json={"inputs": [["so good"], ["one", "pair"]]}).json()
    assert client.post("/predict", json={"inputs": ["one", "pair"]}).json() == batch[1]
    ranks = client.post("/rerank", json={"query": "q", "texts": ["a", "b"], "raw_scores": True}).json()
    alone = client.post("/rerank", json={"query": "q", "texts": ["b"], "raw_scores": True}).json()
    assert alone[0]["score"] in [rank["score"] for rank in ranks if rank["index"] == 1]
    assert client.post("/embed", json={"inputs": ["x"] * 33}).status_code == 413


def test_tgi_stand_in_streams_what_it_generates(tgi_peer: Scripted, opened: Opened) -> None:
    """The Hugging Face client gets one text, plain and streamed, greedy; a sampled one tells its seed."""
    client = opened(sdk("huggingface_hub").InferenceClient(tgi_peer.url))
    tokens = [part.token.text for part in client.text_generation("Once", stream=True, details=True)]
    sampled = sdk("httpx").post(
        f"{tgi_peer.url}/generate", json={"inputs": "Once", "parameters": {"do_sample": True, "details": True}}
    )
    assert "".join(tokens) == client.text_generation("Once")
    assert isinstance(sampled.json()["details"]["seed"], int)


def test_scripted_stream_is_cut_where_told() -> None:
    """A broken connection raises in the SDK where the body's end is told, and is silent where it is not."""
    openai = sdk("openai")
    body = b"".join(shapes.frames(shapes.chat_chunks()))
    lengths = {}
    for framing in ("chunked", "close"):
        reply = Reply(200, body, kind="text/event-stream", framing=framing, cut=len(body) // 2)
        with scripted_server(reply) as server:
            with openai.OpenAI(api_key="k", base_url=server.url, max_retries=0) as client:
                try:
                    lengths[framing] = len(list(client.chat.completions.create(model="m", messages=ASK, stream=True)))
                except openai.APIConnectionError:
                    lengths[framing] = -1
            assert server.count == 1
    assert lengths["chunked"] == -1
    assert 0 < lengths["close"] < 5


def test_relay_counts_what_a_real_peer_is_asked(llama_peer: Server, opened: Opened) -> None:
    """Answers and streams pass unchanged, and every request is seen."""
    with relay(llama_peer.url) as counting:
        client = opened(sdk("openai").OpenAI(api_key="k", base_url=f"{counting.url}/v1"))
        plain = client.chat.completions.create(model="m", messages=ASK, temperature=0)
        chunks = list(client.chat.completions.create(model="m", messages=ASK, temperature=0, stream=True))
        assert [request.path for request in counting.requests] == ["/v1/chat/completions"] * 2
    assert "".join(c.choices[0].delta.content or "" for c in chunks) == plain.choices[0].message.content
    assert len(chunks) > 5


# -- starting and ending -----------------------------------------------------------------------


def answers(url: str) -> bool:
    try:
        return bool(urllib.request.urlopen(url, timeout=5).status)
    except (OSError, urllib.error.URLError):
        return False


@pytest.mark.usefixtures("groq_peer")
def test_a_server_ends_with_its_block() -> None:
    """After the block nothing listens on its port."""
    with servers.llama_server() as server:
        assert answers(f"{server.url}/health")
    assert not answers(f"{server.url}/health")


@pytest.mark.usefixtures("pytriton_peer")
def test_a_server_ends_with_a_killed_test_process(tmp_path: Path) -> None:
    """A process that is killed in the middle of its block leaves no server behind, nor what that started."""
    code = (
        "from peers import servers\n"
        "with servers.pytriton_server() as s:\n    print(s.url, flush=True)\n    import time; time.sleep(600)\n"
    )
    environ = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[1]), "TMPDIR": str(tmp_path)}
    process = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, env=environ, text=True)
    assert process.stdout is not None
    with process.stdout:
        url = process.stdout.readline().strip()
        process.kill()
        process.wait()
    assert url
    deadline = time.monotonic() + 60
    while answers(f"{url}/v2") and time.monotonic() < deadline:
        time.sleep(0.05)
    assert not answers(f"{url}/v2")


def test_a_changed_file_is_not_intact(tmp_path: Path) -> None:
    """A provisioned file is believed only with the checksum beside it."""
    file = tmp_path / "server"
    file.write_bytes(b"one")
    assert not checksums.file_intact(file)
    checksums.record_file(file)
    assert checksums.file_intact(file)
    file.write_bytes(b"two")
    assert not checksums.file_intact(file)


def test_an_unknown_peer_is_named() -> None:
    """`provision nonsense` says which peers there are, and fails."""
    done = subprocess.run(
        [sys.executable, "-m", "tests.peers.provision", "nonsense"],
        cwd=Path(__file__).parents[2], capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 1
    assert "llama, pytriton, mlserver, opea" in done.stdout
