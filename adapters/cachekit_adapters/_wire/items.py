"""Requests that ask for several things at once: taken apart, asked for in part, put together again.

Each item is the request body that asks for it alone, and its answer is the reply body to that request: so an item and
a single call know each other. A body with a parameter that is not known to act on each item alone is not divided (one
vendor's `late_chunking` lets a vector depend on its neighbours).

Here: what every batch needs, and OpenAI's `/v1/embeddings`, which Groq, TEI, OVMS, OPEA and vLLM speak too. Vectors
keep the form they came in, numbers or base64. TEI's own shapes are in `tei`.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence

from cachekit_adapters._wire.exchange import refusing
from cachekit_adapters._wire.openai.vectors import sound

# They do not change a vector.
NEUTRAL = frozenset({"user"})
_KNOWN = frozenset({"input", "model", "dimensions", "encoding_format", "user", "request_type"})
_CHARACTERS_PER_TOKEN = 4


def split(path: str, request: object) -> list[object] | None:
    """The items of an OpenAI-shaped embeddings request, in its order, each as the body that asks for it alone.

    Equal ones are one item. None where it is not divisible: ask and cache it whole.
    """
    body = _body(request)
    inputs = None if body is None else inputs_of(body["input"])
    if body is None or inputs is None:
        return None
    rest = {name: value for name, value in body.items() if name not in NEUTRAL}
    return [{**rest, "input": each} for each in inputs]


def ask(path: str, request: object, places: Sequence[int]) -> object:
    """The body that asks for the items `places` (their indexes) only, equal ones once, in the order of `places`.

    Raises ValueError where `split` gives None.
    """
    body, inputs = _divided(request)
    if not listed(body["input"]) or is_tokens(body["input"]):
        return dict(body)
    return {**body, "input": [inputs[at] for at in distinct(inputs, places)]}


@refusing
def take(path: str, request: object, places: Sequence[int], body: object) -> list[object]:
    """The answers to `places`, in its order, out of the reply to `ask(path, request, places)`.

    Each is the reply body to its item alone: `data` of one entry with index 0, and its share of `usage`; equal items
    share one answer, and its share. Raises ValueError where the reply does not fit the question.
    """
    _, inputs = _divided(request)
    sent = distinct(inputs, places)
    entries = _entries(body, len(sent))
    assert isinstance(body, Mapping)
    usages = _split_usage(body.get("usage"), [inputs[at] for at in sent])
    answers: list[object] = []
    for entry, usage in zip(entries, usages, strict=True):
        given = {"data": [{**entry, "index": 0} if "index" in entry else dict(entry)], "usage": usage}
        answers.append({name: given.get(name, value) for name, value in body.items()})
    return spread(inputs, places, answers)


@refusing
def merge(path: str, request: object, answers: Sequence[object]) -> object:
    """The reply body to the whole request, from the answers to each of its items, in their order.

    `usage` is the sum over the items; an item that the request repeats counts as often as a server would have counted
    it. Raises ValueError where the answers do not fit together, such as those of different models: ask for the whole.
    """
    bodies = [answer for answer in answers if isinstance(answer, Mapping)]
    _, inputs = _divided(request)
    if len(bodies) != len(inputs):
        raise ValueError(f"{len(bodies)} answers for {len(inputs)} items")
    if len({str(body.get("model")) for body in bodies}) > 1:
        raise ValueError("the items were answered by different models")
    data = [_entries(body, 1)[0] for body in bodies]
    placed = [{**entry, "index": at} if "index" in entry else dict(entry) for at, entry in enumerate(data)]
    given = {"data": placed, "usage": _summed([body.get("usage") for body in bodies])}
    return {name: given.get(name, value) for name, value in bodies[0].items()}


def judge(path: str, request: object, body: object) -> str:
    """ "" where the reply to an OpenAI-shaped embeddings request may be stored, else error_in_200 or incomplete."""
    if isinstance(body, Mapping) and body.get("error"):
        return "error_in_200"
    parts = split(path, request)
    data = body.get("data") if isinstance(body, Mapping) else None
    if not isinstance(data, list) or not data or (parts is not None and len(data) != len(parts)):
        return "incomplete"
    return "" if all(isinstance(entry, Mapping) and sound(entry.get("embedding")) for entry in data) else "incomplete"


# -- what every batch needs --------------------------------------------------------------------


def share(usage: int, items: Sequence[object]) -> list[int]:
    """`usage` tokens split among `items` by the length of their texts: whole numbers whose sum is `usage`.

    An item is a text, a list of token numbers, or a body that holds them. The largest remainders are rounded up.
    """
    weights = [max(1, _length(item)) for item in items]
    total = sum(weights)
    parts = [usage * weight // total for weight in weights]
    left = usage - sum(parts)
    by_remainder = sorted(range(len(parts)), key=lambda at: -(usage * weights[at] % total))
    for at in by_remainder[:left]:
        parts[at] += 1
    return parts


def identity(item: object) -> str | tuple[str]:
    """Equal, and hashable, for items that are the same item."""
    return item if isinstance(item, str) else (json.dumps(item, sort_keys=True),)


def distinct(items: Sequence[object], places: Sequence[int]) -> list[int]:
    """`places` without the indexes of items that came before in it."""
    first: dict[str | tuple[str], int] = {}
    for at in places:
        first.setdefault(identity(items[at]), at)
    return list(first.values())


def spread(items: Sequence[object], places: Sequence[int], answers: Iterable[object]) -> list[object]:
    """One answer for each of `places`, from one for each of `distinct(items, places)`."""
    names = [identity(items[at]) for at in distinct(items, places)]
    answered = dict(zip(names, answers, strict=True))
    return [answered[identity(items[at])] for at in places]


def by_index(entries: Sequence[Mapping[str, object]]) -> list[Mapping[str, object]]:
    """`entries` in the order of their `index`, or as they are without one. Raises ValueError unless it is 0 to n - 1."""
    indexes = [entry.get("index", at) for at, entry in enumerate(entries)]
    placed = {index: entry for index, entry in zip(indexes, entries, strict=True) if type(index) is int}
    if set(placed) != set(range(len(entries))):
        raise ValueError("the reply's indexes are not those of the question")
    return [placed[at] for at in range(len(entries))]


def listed(value: object) -> bool:
    """Whether this is an array on the wire."""
    return isinstance(value, (list, tuple))


def inputs_of(value: object) -> list[object] | None:
    """The items of `input`: a text or one list of token numbers is one, a list of these is several; None: neither."""
    given: list[object] = list(value) if isinstance(value, (list, tuple)) and not is_tokens(value) else [value]
    if not given or not all(isinstance(each, str) or is_tokens(each) for each in given):
        return None
    # The wire has no tuples.
    return [list(each) if isinstance(each, tuple) else each for each in given]


def is_tokens(value: object) -> bool:
    """Whether this is one text as its token numbers."""
    return isinstance(value, (list, tuple)) and bool(value) and all(type(each) is int for each in value)


# -- inside ------------------------------------------------------------------------------------


def _body(request: object) -> Mapping[str, object] | None:
    if not isinstance(request, Mapping) or "input" not in request or not _KNOWN.issuperset(request):
        return None
    return request


def _divided(request: object) -> tuple[Mapping[str, object], list[object]]:
    body = _body(request)
    inputs = None if body is None else inputs_of(body["input"])
    if body is None or inputs is None:
        raise ValueError("the request is not divisible")
    return body, inputs


def _entries(body: object, count: int) -> list[Mapping[str, object]]:
    """`data` in the order of the question: by `index` where there is one."""
    data = body.get("data") if isinstance(body, Mapping) else None
    if not isinstance(data, list) or len(data) != count or not all(isinstance(entry, Mapping) for entry in data):
        raise ValueError(f"the reply has not one entry for each of {count} items")
    return by_index(data)


def _split_usage(usage: object, items: Sequence[object]) -> list[object]:
    """Each item's usage: whole numbers shared, everything else as it is."""
    if type(usage) is int:
        return list(share(usage, items))
    if not isinstance(usage, Mapping):
        return [usage] * len(items)
    columns = {name: _split_usage(value, items) for name, value in usage.items()}
    return [{name: column[at] for name, column in columns.items()} for at in range(len(items))]


def _summed(usages: Sequence[object]) -> object:
    """The inverse of `_split_usage`."""
    whole = [usage for usage in usages if type(usage) is int]
    if len(whole) == len(usages):
        return sum(whole)
    tables = [usage for usage in usages if isinstance(usage, Mapping)]
    if len(tables) < len(usages):
        return usages[0]
    return {name: _summed([table.get(name) for table in tables]) for name in tables[0]}


def _length(item: object) -> int:
    if isinstance(item, str):
        return len(item)
    if type(item) is int:
        return _CHARACTERS_PER_TOKEN
    if isinstance(item, Mapping):
        return sum(_length(item[name]) for name in ("input", "inputs", "query", "texts") if name in item)
    return sum(map(_length, item)) if isinstance(item, (list, tuple)) else 0
