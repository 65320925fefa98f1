"""OPEA's own MicroService runtime and protocol classes around models of ours: `python opea_app.py PORT`.

Real: routes, request and response classes, random document ids, statistics, streaming frames. Ours: what is computed.
The vector of a text comes from its SHA-256, a rerank's score from shared words, a chat's answer from the last message.
"""

from __future__ import annotations

import hashlib
import json
import sys
import time
from collections.abc import Iterator
from typing import Any

from comps import (
    EmbedDoc,
    RerankedDoc,
    SearchedDoc,
    TextDoc,
    opea_microservices,
    register_microservice,
    register_statistics,
    statistics_dict,
)
from comps.cores.proto.api_protocol import (
    ChatCompletionRequest,
    ChatCompletionResponse,
    ChatCompletionResponseChoice,
    ChatCompletionResponseStreamChoice,
    ChatCompletionStreamResponse,
    ChatMessage,
    DeltaMessage,
    EmbeddingRequest,
    EmbeddingResponse,
    EmbeddingResponseData,
    RerankingRequest,
    RerankingResponse,
    RerankingResponseData,
    UsageInfo,
)
from fastapi.responses import StreamingResponse

NAME, MODEL = "opea_service@peer", "peer-model"
PORT = int(sys.argv[1])


def register(endpoint: str) -> Any:
    return register_microservice(name=NAME, endpoint=endpoint, host="127.0.0.1", port=PORT)


def vector(text: str) -> list[float]:
    return [(byte - 127.5) / 127.5 for byte in hashlib.sha256(text.encode()).digest()[:16]]


def listed(text: Any) -> list[Any]:
    return text if isinstance(text, list) else [text]


def counted(start: float) -> None:
    statistics_dict[NAME].append_latency(time.time() - start, None)


@register("/v1/embeddings")
@register_statistics(names=[NAME])
async def embed(request: TextDoc | EmbeddingRequest) -> EmbedDoc | EmbeddingResponse:
    start = time.time()
    if isinstance(request, TextDoc):
        vectors = [vector(each) for each in listed(request.text)]
        counted(start)
        return EmbedDoc(text=request.text, embedding=vectors if isinstance(request.text, list) else vectors[0])
    given = listed(request.input)
    tokens = sum(len(str(each).split()) for each in given)
    data = [EmbeddingResponseData(index=at, embedding=vector(str(each))) for at, each in enumerate(given)]
    counted(start)
    return EmbeddingResponse(
        model=MODEL, data=data, usage=UsageInfo(prompt_tokens=tokens, total_tokens=tokens, completion_tokens=0)
    )


def score(query: str, text: str) -> float:
    asked, found = set(query.lower().split()), set(text.lower().split())
    return len(asked & found) / (len(asked | found) or 1)


@register("/v1/reranking")
async def rerank(request: SearchedDoc | RerankingRequest) -> RerankedDoc | RerankingResponse:
    start = time.time()
    if isinstance(request, SearchedDoc):
        best = sorted(request.retrieved_docs, key=lambda doc: -score(request.initial_query, doc.text))
        counted(start)
        return RerankedDoc(reranked_docs=best[: request.top_n], initial_query=request.initial_query)
    texts = [text_of(each) for each in request.retrieved_docs]
    scored = [RerankingResponseData(text=text, score=score(request.input, text)) for text in texts]
    counted(start)
    return RerankingResponse(reranked_docs=sorted(scored, key=lambda each: -each.score)[: request.top_n])


def text_of(document: Any) -> str:
    if isinstance(document, str):
        return document
    return document["text"] if isinstance(document, dict) else document.text


@register("/v1/chat/completions")
async def chat(request: ChatCompletionRequest) -> Any:
    start = time.time()
    prompt = request.messages if isinstance(request.messages, str) else request.messages[-1]["content"]
    words = f"You said: {prompt}".split(" ")
    kept, finish = words[: request.max_tokens], "stop" if len(words) <= request.max_tokens else "length"
    counted(start)
    if request.stream:
        return StreamingResponse(frames(kept, finish), media_type="text/event-stream")
    usage = UsageInfo(
        prompt_tokens=len(str(prompt).split()), completion_tokens=len(kept),
        total_tokens=len(str(prompt).split()) + len(kept),
    )  # fmt: skip
    message = ChatMessage(role="assistant", content=" ".join(kept))
    choice = ChatCompletionResponseChoice(index=0, message=message, finish_reason=finish)
    return ChatCompletionResponse(model=MODEL, choices=[choice], usage=usage)


def frames(words: list[str], finish: str) -> Iterator[str]:
    pieces = [word if at == 0 else " " + word for at, word in enumerate(words)]
    ends = [None] * len(pieces) + [finish]
    for piece, end in zip([*pieces, ""], ends, strict=True):
        choice = ChatCompletionResponseStreamChoice(index=0, delta=DeltaMessage(content=piece), finish_reason=end)
        chunk = ChatCompletionStreamResponse(id="chatcmpl-peer", model=MODEL, choices=[choice])
        yield f"data: {json.dumps(chunk.model_dump())}\n\n"
    yield "data: [DONE]\n\n"


if __name__ == "__main__":
    opea_microservices[NAME].start()
