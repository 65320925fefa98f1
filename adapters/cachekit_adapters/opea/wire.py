"""OPEA's GenAI components: which routes may be cached, what identifies a request, which replies are whole.

Its documents (docarray's) get a random `id` each, in requests too, so an identity leaves them out; `relabel` gives a
stored reranking the ids of the documents that were asked about. Chat is OpenAI's (`_wire.openai`); embeddings are
OpenAI's, or a TextDoc answered by an EmbedDoc; rerankings are its own. A retrieval depends on what the index holds.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from cachekit_adapters._wire import items, openai, sse
from cachekit_adapters._wire.exchange import readable
from cachekit_adapters._wire.openai.vectors import sound

# They change neither the answer nor, but for its framing, how it is told.
NEUTRAL = frozenset({"user", "service_tier", "timeout", "stream", "stream_options"})
_CHAT = "/v1/chat/completions"
_EMBEDDINGS, _RERANKING = "/v1/embeddings", "/v1/reranking"
_GENERATED = (_CHAT, "/v1/completions", "/v1/docsum", "/v1/faqgen", "/v1/lvm")
# Any other route retrieves, writes, observes, or is not known: never cached.
_CACHEABLE = (
    *_GENERATED, _EMBEDDINGS, _RERANKING, "/v1/guardrails", "/v1/audio/transcriptions", "/v1/audio/speech",
    "/v1/text2image",
)  # fmt: skip
# What stands in these is the caller's own: a tool call's id pairs it with its result.
_OWN = frozenset({"messages", "tools", "tool_choice", "metadata", "response_format"})
# A file of the server's: its name is not its content.
_FILES = ("image_path", "audio_path")


def cacheable(path: str, request: object = None) -> bool:
    """Whether a reply of this route depends on the request alone; False too if the request names a file there."""
    if not _route(path).endswith(_CACHEABLE):
        return False
    return not (isinstance(request, Mapping) and any(request.get(name) for name in _FILES))


def identity(path: str, request: object) -> object:
    """`request` without its documents' random ids and without what does not change the answer (`NEUTRAL`)."""
    if not isinstance(request, Mapping):
        return _without_ids(request)
    return _without_ids({name: value for name, value in request.items() if name not in NEUTRAL})


def relabel(path: str, request: object, body: object) -> object:
    """A stored reranking with the ids of `request`'s documents, matched by their texts; another body as it is."""
    if not isinstance(body, Mapping) or not isinstance(request, Mapping):
        return body
    ids: dict[str, list[object]] = {}
    for document in _documents(request.get("retrieved_docs")):
        if "id" in document:
            ids.setdefault(str(document.get("text")), []).append(document["id"])
    ranked = body.get("reranked_docs")
    if not ids or not isinstance(ranked, list):
        return body
    return {**body, "reranked_docs": [_labelled(document, ids) for document in ranked]}


def sampled(path: str, request: object) -> bool:
    """Whether the answer is drawn by lot: text is unless temperature is 0 (OPEA's default is 0.01), an image always."""
    route = _route(path)
    if not route.endswith(_GENERATED):
        return route.endswith("/v1/text2image")
    temperature = request.get("temperature") if isinstance(request, Mapping) else None
    return type(temperature) not in (int, float) or temperature != 0


def judge(path: str, request: object, body: object) -> str:
    """ "" where the reply may be stored, else the reason: error_in_200, incomplete, or what a chat's reply says."""
    route = _route(path)
    if _is_error(body):
        return "error_in_200"
    if isinstance(body, Mapping) and "choices" in body:
        return openai.judge(body)
    if route.endswith(_EMBEDDINGS):
        return _judge_embeddings(path, request, body)
    if route.endswith(_RERANKING):
        return _judge_reranking(request, body)
    return "incomplete" if not body or (route.endswith(_CHAT) and not _text(body)) else ""


def judge_stream(data: bytes) -> str:
    """ "" where `data` is a whole stream that may be stored. One of other chunks than a chat's is whole with its [DONE]."""
    texts = [text for _, text in sse.events(data)]
    parsed = [readable(text) for text in texts]
    if any(map(_is_error, parsed)):
        return "error_in_200"
    if not texts or any(isinstance(each, Mapping) and "choices" in each for each in parsed):
        return openai.judge_stream(data)
    return "" if texts[-1].strip() == "[DONE]" and len(texts) > 1 else "incomplete"


# -- inside ------------------------------------------------------------------------------------


def _route(path: str) -> str:
    return path.partition("?")[0].rstrip("/")


def _without_ids(value: object) -> object:
    if isinstance(value, Mapping):
        kept = {name: each for name, each in value.items() if name != "id"}
        return {name: each if name in _OWN else _without_ids(each) for name, each in kept.items()}
    return [_without_ids(each) for each in value] if isinstance(value, (list, tuple)) else value


def _documents(value: object) -> Sequence[Mapping[str, object]]:
    return [each for each in value if isinstance(each, Mapping)] if isinstance(value, (list, tuple)) else []


def _labelled(document: object, ids: Mapping[str, list[object]]) -> object:
    """`document` with the first id that is left for its text."""
    if not isinstance(document, Mapping) or "id" not in document:
        return document
    left = ids.get(str(document.get("text")))
    return {**document, "id": left.pop(0)} if left else document


def _is_error(body: object) -> bool:
    """`error`, or FastAPI's `detail` alone."""
    return isinstance(body, Mapping) and (bool(body.get("error")) or set(body) == {"detail"})


def _text(body: object) -> bool:
    return isinstance(body, Mapping) and isinstance(body.get("text"), str)


def _judge_embeddings(path: str, request: object, body: object) -> str:
    if not isinstance(body, Mapping) or "embedding" not in body:
        return items.judge(path, request, body)
    vectors = body["embedding"]
    texts = body.get("text")
    if isinstance(texts, list):
        whole = isinstance(vectors, list) and len(vectors) == len(texts) and all(map(sound, vectors))
        return "" if whole else "incomplete"
    return "" if sound(vectors) else "incomplete"


def _judge_reranking(request: object, body: object) -> str:
    """As many documents as were asked for, where the request says how many."""
    ranked = body.get("reranked_docs") if isinstance(body, Mapping) else None
    if not isinstance(ranked, list):
        return "incomplete"
    fields = request if isinstance(request, Mapping) else {}
    given, top = fields.get("retrieved_docs"), fields.get("top_n", 1)
    if not isinstance(given, list) or not isinstance(top, int):
        return ""
    return "" if len(ranked) >= min(top, len(given)) else "incomplete"
