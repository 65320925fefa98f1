"""Batches of OpenAI's embeddings: divided, asked for in part, put together again."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cachekit_adapters._wire import items

PATH = "/v1/embeddings"
ITEM = st.one_of(st.text(max_size=6), st.lists(st.integers(0, 9), min_size=1, max_size=3))


def server(request: Any) -> Any:
    """What an honest server says: a vector that depends on its item alone, tokens by the item's length."""
    given = request["input"]
    listed = isinstance(given, list) and not all(type(each) is int for each in given)
    inputs = given if listed else [given]
    data = [{"object": "embedding", "index": at, "embedding": [repr(each)]} for at, each in enumerate(inputs)]
    tokens = sum(max(1, len(each)) for each in inputs)
    usage = {"prompt_tokens": tokens, "total_tokens": tokens}
    return {"object": "list", "data": data, "model": "m", "usage": usage}


@given(st.lists(ITEM, min_size=1, max_size=8), st.data())
def test_a_partly_known_batch_is_answered_like_a_whole_one(inputs: list[Any], data: st.DataObject) -> None:
    """Whatever of a batch was known before, and however often items repeat, the vectors are the whole answer's."""
    request = {"input": inputs, "model": "m", "user": "u"}
    batch = items.split(PATH, request)
    assert batch is not None
    known = data.draw(st.sets(st.integers(0, len(batch) - 1)))
    answers: dict[int, object] = {at: items.take(PATH, batch[at], [0], server(batch[at]))[0] for at in known}
    wanted = [at for at in range(len(batch)) if at not in known]
    if wanted:
        sent: Any = items.ask(PATH, request, wanted)
        assert len({repr(each) for each in sent["input"]}) == len(sent["input"])
        answers |= dict(zip(wanted, items.take(PATH, request, wanted, server(sent)), strict=True))
    merged: Any = items.merge(PATH, request, [answers[at] for at in range(len(batch))])
    whole = server({**request, "input": [item["input"] for item in batch]})  # type: ignore[index]
    assert merged["data"] == whole["data"]
    shares = [answers[at]["usage"]["prompt_tokens"] for at in range(len(batch))]  # type: ignore[index]
    assert merged["usage"]["prompt_tokens"] == sum(shares)


@given(st.lists(ITEM, min_size=1, max_size=8, unique_by=repr))
def test_an_answer_taken_apart_and_merged_is_itself(inputs: list[Any]) -> None:
    """Without repeats the merged answer is the server's own, usage included."""
    request = {"input": inputs, "model": "m"}
    batch = items.split(PATH, request)
    assert batch is not None
    everything = list(range(len(batch)))
    body = server(request)
    assert items.merge(PATH, request, items.take(PATH, request, everything, body)) == body


@given(st.integers(0, 10_000), st.lists(st.text(max_size=9), min_size=1, max_size=20))
def test_shares_add_up(tokens: int, texts: list[str]) -> None:
    """No token is lost or invented, and a longer text never bears less than a shorter one by more than rounding."""
    parts = items.share(tokens, texts)
    assert sum(parts) == tokens
    assert min(parts) >= 0
    for one, part in zip(texts, parts, strict=True):
        for other, its in zip(texts, parts, strict=True):
            assert len(one) <= len(other) or part >= its - 1


def test_shares_follow_the_length() -> None:
    """Three times the text bears three times the tokens; token lists count as what they are."""
    assert items.share(8, ["ab", "abcdef"]) == [2, 6]
    assert items.share(4, ["a", "ab"]) == [1, 3]
    assert items.share(5, [{"input": [1, 2]}, {"input": [3, 4, 5]}]) == [2, 3]


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ("one", ["one"]),
        (["one", "two"], ["one", "two"]),
        ([1, 2, 3], [[1, 2, 3]]),
        ([[1, 2], [3]], [[1, 2], [3]]),
        (("one", (1, 2)), ["one", [1, 2]]),
        ([], None),
        ([True, False], None),
        ([[]], None),
        ([1, "one"], None),
        ({"text": "one"}, None),
        (None, None),
    ],
)
def test_what_an_item_is(given: object, expected: object) -> None:
    """A text, or one list of token numbers; anything else is not divided, and the server says what it thinks of it."""
    batch = items.split(PATH, {"input": given})
    assert (None if batch is None else [item["input"] for item in batch]) == expected  # type: ignore[index]


def test_a_single_text_is_the_item_of_a_batch() -> None:
    """A text asked for alone, or by another user, is known from a batch; with other dimensions it is another item."""
    single = items.split(PATH, {"input": "one", "model": "m"})
    batch = items.split(PATH, {"input": ["zero", "one"], "model": "m", "user": "u"})
    other = items.split(PATH, {"input": "one", "model": "m", "dimensions": 3})
    assert single and batch and other
    assert single[0] == batch[1] != other[0]


def test_an_unknown_parameter_keeps_the_batch_whole() -> None:
    """`late_chunking` lets a vector depend on its neighbours; so might whatever is not known."""
    request = {"input": ["one", "two"], "late_chunking": True}
    assert items.split(PATH, request) is None
    with pytest.raises(ValueError, match="not divisible"):
        items.ask(PATH, request, [0])


def test_order_is_that_of_the_indexes() -> None:
    """A server may tell the vectors in any order; base64 stays base64."""
    data = [{"index": 1, "embedding": "AACAPw=="}, {"index": 0, "embedding": "AAAAQA=="}]
    answers: Any = items.take(PATH, {"input": ["one", "two"]}, [0, 1], {"data": data})
    assert [answer["data"] for answer in answers] == [
        [{"index": 0, "embedding": "AAAAQA=="}],
        [{"index": 0, "embedding": "AACAPw=="}],
    ]


@pytest.mark.parametrize(
    "data",
    [
        [{"index": 0}],
        [{"index": 0}, {"index": 0}],
        [{"index": 0}, {"index": 2}],
        [{"index": 0}, {"index": [1]}],
        [{"index": 0}, {"index": True}],
        [{"index": 0}, None],
        None,
    ],
)
def test_a_reply_that_does_not_fit_is_not_taken_apart(data: object) -> None:
    """Too few, repeated, missing or odd indexes: a vector is never given to the wrong text."""
    with pytest.raises(ValueError):
        items.take(PATH, {"input": ["one", "two"]}, [0, 1], {"data": data})


def test_answers_of_two_models_are_not_merged() -> None:
    """An alias that moved between two calls: vectors of two models do not stand in one answer."""
    answers = [{"data": [{"index": 0, "embedding": [1.0]}], "model": name} for name in ("m-1", "m-2")]
    with pytest.raises(ValueError, match="different models"):
        items.merge(PATH, {"input": ["one", "two"]}, answers)


def test_usage_keeps_what_is_no_count() -> None:
    """Nested counts are shared and summed; a null, a time, an absent usage stay as they are."""
    request = {"input": ["one", "two", "six"]}
    usage = {"prompt_tokens": 7, "details": {"cached": 2, "note": None}, "seconds": 0.5}
    body = {**server(request), "usage": usage}
    answers: Any = items.take(PATH, request, [0, 1, 2], body)
    assert [answer["usage"]["prompt_tokens"] for answer in answers] == [3, 2, 2]
    assert items.merge(PATH, request, answers) == body
    bare = {name: value for name, value in body.items() if name != "usage"}
    assert items.merge(PATH, request, items.take(PATH, request, [0, 1, 2], bare)) == bare


@pytest.mark.parametrize(
    ("body", "reason"),
    [
        ({"data": [{"embedding": [1.0]}, {"embedding": "AA=="}]}, ""),
        ({"data": [{"embedding": [1.0]}]}, "incomplete"),
        ({"data": [{"embedding": [1.0]}, {"embedding": [None]}]}, "incomplete"),
        ({"data": [{"embedding": [1.0]}, {"embedding": []}]}, "incomplete"),
        ({"data": [{"embedding": [1.0]}, {}]}, "incomplete"),
        ({"error": {"message": "no"}}, "error_in_200"),
        ({"data": []}, "incomplete"),
        ({}, "incomplete"),
        ([], "incomplete"),
        (None, "incomplete"),
    ],
)
def test_which_replies_are_stored(body: object, reason: str) -> None:
    """A vector for each text, without a null; an error in a 200 is one."""
    assert items.judge(PATH, {"input": ["one", "two"]}, body) == reason
