"""How Text Embeddings Inference's batches are divided: item by item in `/embed*`, `/predict` and `/rerank`.

`/v1/embeddings` is divided as `items` does it. `/similarity` is one answer. `/` is what the server's model makes of it:
a list of two texts is two items to an embedder and one pair to a classifier, so only a rerank, which cannot be
mistaken, is divided there; who knows the operation names its route.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from cachekit_adapters._wire import items
from cachekit_adapters._wire.exchange import refusing

_COMMON = frozenset({"inputs", "truncate", "truncation_direction"})
# A parameter that is not among these may act across items: such a request stays whole.
_KNOWN: Mapping[str, frozenset[str]] = {
    "/embed": _COMMON | {"prompt_name", "normalize", "dimensions"},
    "/embed_all": _COMMON | {"prompt_name"},
    "/embed_sparse": _COMMON | {"prompt_name"},
    "/predict": _COMMON | {"raw_scores"},
    "/rerank": frozenset({"query", "texts", "raw_scores", "return_text", "truncate", "truncation_direction"}),
}
OPENAI = frozenset({"/v1/embeddings", "/embeddings"})


def operation(path: str, request: object) -> str:
    """The route that `path` ends with, whatever the base URL's own path is; "" where that is none of the server's."""
    route = path.partition("?")[0].rstrip("/")
    reranks = isinstance(request, Mapping) and {"query", "texts"}.issubset(request)
    for known in (*OPENAI, *_KNOWN, "/similarity"):
        # Other servers' `/rerank` has `documents`, and another reply.
        if route.endswith(known) and (known != "/rerank" or reranks):
            return known
    return "/rerank" if not route and reranks else ""


def split(path: str, request: object) -> list[object] | None:
    """The request's items, each as the body that asks for it alone; None where it is not divisible."""
    route = operation(path, request)
    if route in OPENAI:
        return items.split(path, request)
    elements = _elements(route, request)
    if elements is None or not isinstance(request, Mapping):
        return None
    field = _field(route)
    return [{**request, field: _alone(route, each)} for each in elements]


def ask(path: str, request: object, places: Sequence[int]) -> object:
    """The body that asks for the items `places` only, equal ones once. Raises ValueError where `split` gives None."""
    route = operation(path, request)
    if route in OPENAI:
        return items.ask(path, request, places)
    body, elements = _divided(route, request)
    field = _field(route)
    if not _batched(route, body[field]):
        return dict(body)
    return {**body, field: [elements[at] for at in _distinct(route, elements, places)]}


@refusing
def take(path: str, request: object, places: Sequence[int], body: object) -> list[object]:
    """The answers to `places`, each the reply body to its item alone. Raises ValueError where the reply does not fit.

    Tokens are told by a header: `items.share(wire.usage(body, headers).input, …)` splits them.
    """
    route = operation(path, request)
    if route in OPENAI:
        return items.take(path, request, places, body)
    whole, elements = _divided(route, request)
    sent = _distinct(route, elements, places)
    alone = [_alone(route, each) for each in elements]
    return items.spread(alone, places, _answers(route, body, len(sent), _batched(route, whole[_field(route)])))


@refusing
def merge(path: str, request: object, answers: Sequence[object]) -> object:
    """The reply body to the whole request: in its order, a rerank's by descending score. ValueError if they don't fit."""
    route = operation(path, request)
    if route in OPENAI:
        return items.merge(path, request, answers)
    body, elements = _divided(route, request)
    if len(answers) != len(elements):
        raise ValueError(f"{len(answers)} answers for {len(elements)} items")
    if route == "/predict":
        return list(answers) if _batched(route, body["inputs"]) else answers[0]
    entries = [_only(answer) for answer in answers]
    return _ranked(entries) if route == "/rerank" else entries


def fits(route: str, request: object, body: list[object]) -> bool:
    """Whether the reply has as many entries as there were questions."""
    elements = _elements(route, request)
    if isinstance(request, Mapping) and elements is not None:
        if not _batched(route, request[_field(route)]):
            return route == "/predict" or len(body) == 1
        try:
            return len(_answers(route, body, len(elements), True)) == len(elements)
        except ValueError:
            return False
    inputs = request.get("inputs") if isinstance(request, Mapping) else None
    sentences = inputs.get("sentences") if isinstance(inputs, Mapping) else None
    return not isinstance(sentences, (list, tuple)) or len(body) == len(sentences)


# -- inside ------------------------------------------------------------------------------------


def _field(route: str) -> str:
    return "texts" if route == "/rerank" else "inputs"


def _elements(route: str, request: object) -> list[object] | None:
    """The items as they stand in the request, or None."""
    if not isinstance(request, Mapping) or not _KNOWN.get(route, frozenset()).issuperset(request):
        return None
    given = request.get(_field(route))
    if route != "/rerank":
        return _sequences(given) if route == "/predict" else items.inputs_of(given)
    if not isinstance(given, (list, tuple)) or not given or not isinstance(request.get("query"), str):
        return None
    return list(given) if all(isinstance(text, str) for text in given) else None


def _sequences(given: object) -> list[object] | None:
    """A text, a pair of texts, or a list of lists of one or two; anything else the server refuses."""
    if _is_sequence(given):
        return [given]
    if not isinstance(given, (list, tuple)) or not given:
        return None
    return list(given) if all(_is_sequence(each) and not isinstance(each, str) for each in given) else None


def _is_sequence(given: object) -> bool:
    if isinstance(given, str):
        return True
    return isinstance(given, (list, tuple)) and len(given) in (1, 2) and all(isinstance(each, str) for each in given)


def _batched(route: str, given: object) -> bool:
    if not items.listed(given) or route == "/rerank":
        return route == "/rerank"
    return not (_is_sequence(given) if route == "/predict" else items.is_tokens(given))


def _alone(route: str, element: object) -> object:
    """An item as the only one of its request; a list of one text says the same as the text."""
    if route == "/rerank":
        return [element]
    if route == "/predict" and isinstance(element, (list, tuple)):
        return element[0] if len(element) == 1 else list(element)
    return element


def _divided(route: str, request: object) -> tuple[Mapping[str, object], list[object]]:
    elements = _elements(route, request)
    if elements is None or not isinstance(request, Mapping):
        raise ValueError("the request is not divisible")
    return request, elements


def _distinct(route: str, elements: Sequence[object], places: Sequence[int]) -> list[int]:
    return items.distinct([_alone(route, each) for each in elements], places)


def _answers(route: str, body: object, count: int, batched: bool) -> list[object]:
    """The reply to `count` items, taken apart into the replies to each alone."""
    if route == "/predict" and not batched:
        return [body]
    if not isinstance(body, list) or len(body) != count:
        raise ValueError(f"the reply has not one entry for each of {count} items")
    if route == "/predict":
        return list(body)
    if route != "/rerank":
        return [[entry] for entry in body]
    if not all(isinstance(rank, Mapping) and "index" in rank for rank in body):
        raise ValueError("a rank without an index")
    return [[{**rank, "index": 0}] for rank in items.by_index(body)]


def _only(answer: object) -> object:
    if not isinstance(answer, list) or len(answer) != 1:
        raise ValueError("not the answer to one item")
    return answer[0]


def _ranked(entries: Sequence[object]) -> list[dict[str, Any]]:
    ranks: list[dict[str, Any]] = [
        {**entry, "index": at} for at, entry in enumerate(entries) if isinstance(entry, Mapping)
    ]
    if len(ranks) != len(entries) or not all(isinstance(rank.get("score"), (int, float)) for rank in ranks):
        raise ValueError("a rank without a score")
    return sorted(ranks, key=lambda rank: -rank["score"])
