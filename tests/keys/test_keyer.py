"""Keys of calls: what Python binds alike agrees, everything else that decides the answer tells calls apart."""

from __future__ import annotations

import functools
import inspect
import marshal
import os
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest
import wrapt

from cachekit.calls.lanes import lane_safe
from cachekit.errors import CannotKey, UsageError
from cachekit.keys.keyer import Keyer
from cachekit.model import Key, Policy

ROOT = Path(__file__).resolve().parents[2]
MODEL = "gpt"
CLIENT = object()
API_KEY = "sk-global-secret"  # noqa: S105


def chat(prompt: str, /, model: str = "m", *messages: str, temperature: float = 0.0, **options: Any) -> Any:
    return prompt, model, messages, temperature, options


def ask(text: str, model: str = "m", *, temperature: float = 0.0) -> Any:
    return text, model, temperature


def reads_globals(x: int) -> Any:
    return x, MODEL, CLIENT, API_KEY


def make(inner: Any) -> Callable[[int], Any]:
    def closed(x: int) -> Any:
        return x, inner

    return closed


def keyer(function: Any, **policy: Any) -> Keyer:
    return Keyer(function, policy=Policy(**policy))


def key(function: Any, *args: Any, **kwargs: Any) -> Key:
    return keyer(function).key(args, kwargs, namespace="n", sample=0)


def test_calls_bound_alike_share_a_key() -> None:
    """Positional, keyword and default spellings of one call are one call."""
    assert key(ask, "a") == key(ask, text="a") == key(ask, "a", "m") == key(ask, model="m", text="a", temperature=0.0)
    assert key(ask, "a") != key(ask, "a", temperature=0)
    assert key(chat, "a", x=1, y=2) == key(chat, "a", "m", y=2, x=1, temperature=0.0)


@pytest.mark.parametrize(
    ("args", "kwargs"),
    [
        (("a",), {}), (("a", "b"), {}), (("a", "b", "c", "d"), {}), (("a",), {"model": "b"}), (("a",), {"x": 1}),
        (("a",), {"prompt": 1}), (("a", "b"), {"model": "c"}), ((), {}), ((), {"prompt": "a"}), (("a",), {"options": 1}),
        (("a",), {"messages": 1}), (("a", "b", "c"), {"temperature": 1, "x": None}), (("a", "b", "c"), {"model": 1}),
    ],
)  # fmt: skip
@pytest.mark.parametrize("function", [chat, ask])
def test_bind_is_pythons(function: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
    """The hand-written bind agrees with Signature.bind, and raises TypeError exactly where the call does."""
    try:
        expected = inspect.signature(function).bind(*args, **kwargs)
    except TypeError:
        with pytest.raises(TypeError):
            function(*args, **kwargs)
        with pytest.raises(TypeError):
            keyer(function).bind(args, kwargs)
        return
    expected.apply_defaults()
    assert keyer(function).bind(args, kwargs) == expected.arguments


def test_bind_gives_fresh_containers() -> None:
    """Changing what bind gave does not change the next bind."""
    binder = keyer(chat)
    binder.bind(("a",), {})["options"]["x"] = 1
    assert binder.bind(("a",), {})["options"] == {}


def test_function_version_namespace_and_sample_count() -> None:
    """Each of these alone changes the digest; sample 0 is no sample."""
    base = keyer(ask).key(("a",), {}, namespace="n", sample=0)
    others = [
        keyer(chat).key(("a",), {}, namespace="n", sample=0),
        keyer(ask, version="1").key(("a",), {}, namespace="n", sample=0),
        keyer(ask, version="2").key(("a",), {}, namespace="n", sample=0),
        keyer(ask).key(("a",), {}, namespace="m", sample=0),
        keyer(ask).key(("a",), {}, namespace="n", sample=1),
    ]
    assert len({item.digest for item in [base, *others]}) == 6
    assert keyer(ask, sample=1).key(("a",), {}, namespace="n").digest == others[-1].digest
    assert Keyer(ask, policy=Policy(), namespace=lambda: "n").key(("a",), {}) == base
    assert base.function == f"{__name__}.ask"
    assert base.shareable


def test_globals_at_the_moment_of_the_call_count(monkeypatch: pytest.MonkeyPatch) -> None:
    """An edited constant is another key, in value or in type alone; an object that is no constant is not looked at."""
    subject = keyer(reads_globals)

    def digest() -> bytes:
        return subject.key((1,), {}, namespace="n", sample=0).digest

    digests = [digest()]
    for value in (1, True, 1.0, ("a", 1), ("a", (1,))):
        monkeypatch.setattr(sys.modules[__name__], "MODEL", value)
        digests.append(digest())
    assert len(set(digests)) == len(digests)
    last = digest()
    monkeypatch.setattr(sys.modules[__name__], "CLIENT", object())
    assert digest() == last


def test_state_follows_the_constants(monkeypatch: pytest.MonkeyPatch) -> None:
    """`state` is another one for another constant, the same again for the old one, and can be marshalled."""
    subject = keyer(reads_globals, ignore=frozenset({"CLIENT"}))
    before = subject.state()
    assert subject.fast
    with monkeypatch.context() as patch:
        patch.setattr(sys.modules[__name__], "MODEL", "new")
        assert subject.state() != before
    assert marshal.dumps(subject.state(), 2) == marshal.dumps(before, 2)
    assert keyer(make).state() == ()


def test_closures_count() -> None:
    """Closures over different values, types, functions or closures of functions are different functions."""
    inners = [1, 1.0, "1", (1,), [1], None, make(1), make(2), make(make(1)), make(make(2)), ask, chat, sys, int, len]
    keys = [key(make(inner), 0) for inner in inners]
    assert len({item.digest for item in keys}) == len(keys)
    assert key(make(make(1)), 0) == key(make(make(1)), 0)


def test_fast_is_for_plain_closures() -> None:
    """Only what is read of plain values, or of code, has a state that says everything."""
    assert keyer(make((1, "a"))).fast
    assert keyer(make([1])).fast
    assert keyer(make(make(1))).fast
    assert not keyer(make(Path(__file__))).fast
    assert keyer(make(Path(__file__)), ignore=frozenset({"inner"})).fast


def test_rebound_cells_count() -> None:
    """A cell is read at the call: rebinding it changes the key."""
    counter = 0

    def closed() -> int:
        return counter

    before = key(closed)
    counter = 1
    assert key(closed) != before


def test_recursive_closures_end() -> None:
    """A function that reaches itself through its closure has a stable key."""

    def build(step: int) -> Any:
        def even(n: int) -> Any:
            return n == 0 or odd(n - step)

        def odd(n: int) -> Any:
            return n != 0 and even(n - step)

        return even

    assert key(build(1), 4) == key(build(1), 4)
    assert key(build(1), 4) != key(build(2), 4)


def test_wrappers_count_by_what_they_wrap() -> None:
    """A decorated function in a closure, and functools.wraps layers, count by the function inside and by the wrapper."""

    def proxied(function: Any) -> Any:
        return wrapt.FunctionWrapper(function, lambda wrapped, _self, args, kwargs: wrapped(*args, **kwargs))

    def layered(function: Any) -> Any:
        @functools.wraps(function)
        def layer(*args: Any, **kwargs: Any) -> Any:
            return function(*args, **kwargs)

        return layer

    assert key(make(proxied(make(1))), 0) == key(make(proxied(make(1))), 0)
    assert key(make(proxied(make(1))), 0) != key(make(proxied(make(2))), 0)
    assert key(layered(make(1)), 0) != key(layered(make(2)), 0)


def test_functions_as_arguments_count_by_code_defaults_and_closure() -> None:
    """Lambdas of one loop that differ only in a default are different arguments."""
    adders = [lambda x, n=n: x + n for n in (1, 2, 1)]
    keys = [key(ask, adder) for adder in adders]
    assert keys[0] == keys[2]
    assert keys[0] != keys[1]


def test_unkeyable_arguments_and_closures_are_named() -> None:
    """CannotKey names the parameter, or the name inside **kwargs."""
    for call, name in (
        (lambda: key(ask, "a", CLIENT), "model"),
        (lambda: key(chat, "a", client=CLIENT), "client"),
    ):
        with pytest.raises(CannotKey) as caught:
            call()
        assert caught.value.argument == name


def test_ignore_leaves_out_arguments_and_closure_variables() -> None:
    """Ignored names count nowhere: parameters, names inside **kwargs, closure variables."""

    def ignoring(function: Any, *args: Any, **kwargs: Any) -> bytes:
        return keyer(function, ignore=frozenset({"model", "timeout", "inner"})).key(args, kwargs, namespace="n").digest

    assert ignoring(ask, "a", CLIENT) == ignoring(ask, "a")
    assert ignoring(chat, "a", timeout=1) == ignoring(chat, "a", timeout=CLIENT) == ignoring(chat, "a")
    assert ignoring(make(CLIENT), 1) == ignoring(make(1), 1)


def test_key_replaces_the_arguments() -> None:
    """`key=` sees one mapping with defaults applied, and only its result counts."""
    seen: list[dict[str, Any]] = []

    def first(bound: Any) -> Any:
        seen.append(dict(bound))
        return bound["text"]

    subject = keyer(ask, key=first)
    one, two, other = (
        subject.key(args, {}, namespace="n").digest for args in (("a", CLIENT), ("a", "x"), ("b", CLIENT))
    )
    assert one == two != other
    assert seen[0] == {"text": "a", "model": CLIENT, "temperature": 0.0}


class Plain:
    def method(self, x: int) -> Any:
        return self, x

    @classmethod
    def named(cls, x: int) -> Any:
        return cls, x


class Other(Plain):
    pass


@dataclass(frozen=True)
class Frozen:
    name: str

    def method(self, x: int) -> Any:
        return self, x


class Keyed(Plain):
    def __cachekit_key__(self) -> str:
        return "k"


def test_self_and_cls_are_the_first_argument() -> None:
    """`self` needs a value that can be keyed; a class counts by its name."""
    with pytest.raises(CannotKey) as caught:
        key(Plain.method, Plain(), 1)
    assert caught.value.argument == "self"
    assert key(Frozen.method, Frozen("a"), 1) == key(Frozen.method, Frozen("a"), 1)
    assert key(Frozen.method, Frozen("a"), 1) != key(Frozen.method, Frozen("b"), 1)
    assert key(Plain.method, Keyed(), 1) == key(Plain.method, Keyed(), 1)
    assert key(Plain.__dict__["named"], Plain, 1) != key(Plain.__dict__["named"], Other, 1)


def test_secrets_count_and_never_show() -> None:
    """A secret argument tells tenants apart, and stands in no explanation."""

    def call(text: str, api_key: str, **headers: str) -> Any:
        return text, api_key, headers

    one, two = key(call, "a", "sk-one-secret"), key(call, "a", "sk-two-secret")
    assert one != two
    explained = keyer(call).explain(("a", "sk-one-secret"), {"x_api_key": "sk-header-secret"}, namespace="n")
    shown = str(explained.parts) + str(keyer(reads_globals).explain((1,), {}, namespace="n").parts)
    assert "sk-" not in shown
    assert ("argument api_key", "<secret>") in explained.parts
    ignoring = keyer(call, ignore=frozenset({"api_key"}))
    assert ignoring.key(("a", "x"), {}, namespace="n") == ignoring.key(("a", "y"), {}, namespace="n")


def test_explain_is_the_same_key_with_parts() -> None:
    """An explanation has the digest of the call, and says function, version, constants, closure and arguments."""
    subject = keyer(make("v"), version="7")
    explained = subject.explain((1,), {}, namespace="n", sample=2)
    assert explained == subject.key((1,), {}, namespace="n", sample=2)
    parts = dict(explained.parts)
    assert parts["version"] == "7"
    assert parts["closure inner"] == "'v'"
    assert parts["argument x"] == "1"
    assert parts["sample"] == "2"
    assert dict(keyer(reads_globals).explain((1,), {}, namespace="n").parts)["constant MODEL"] == "'gpt'"


def test_unavailable_source_is_not_shareable() -> None:
    """Code without source, in the function or its closure, stays here, unless a version says what it is."""
    space: dict[str, Any] = {"__name__": "generated"}
    exec(compile("def f(x): return x", "<generated>", "exec"), space)  # noqa: S102
    assert not key(space["f"], 1).shareable
    assert not key(make(space["f"]), 1).shareable
    assert not key(ask, space["f"]).shareable
    assert keyer(space["f"], version="1").key((1,), {}, namespace="n").shareable


def test_tags_fill_in_arguments() -> None:
    """Tags take plain argument names, those inside **kwargs included."""
    subject = keyer(chat, tags=("all", "model:{model}", "user:{user_id}"))
    assert subject.tags(subject.bind(("a",), {"user_id": 7})) == ("all", "model:m", "user:7")
    with pytest.raises(UsageError, match="user_id"):
        subject.tags(subject.bind(("a",), {}))


@pytest.mark.parametrize(
    "template", ["{text.__class__}", "{text[0]}", "{nobody}", "{}", "{0}", "{text!r}", "{text:>9}", "{", "{api_key}"]
)
def test_tag_templates_are_plain_names(template: str) -> None:
    """A template that reaches into arguments, names none, or would write a secret is refused when it is given."""

    def call(text: str, api_key: str = "") -> Any:
        return text, api_key

    with pytest.raises(UsageError):
        keyer(call, tags=(template,))


def test_no_source_is_read_before_the_first_key(monkeypatch: pytest.MonkeyPatch) -> None:
    """Building a Keyer reads no file."""
    monkeypatch.setattr("builtins.open", lambda *_a, **_k: pytest.fail("opened a file"))
    monkeypatch.setattr("linecache.getlines", lambda *_a, **_k: pytest.fail("read source"))
    keyer(ask, tags=("{text}",))


@pytest.mark.parametrize(
    "tree", [1, "a", None, 1.5, [1, (2, {"a": True, 1: None})], {}, ((), {"m": [{"r": "u"}]}), float("nan")]
)
def test_lane_takes_plain_trees(tree: Any) -> None:
    """Trees of exact plain types may be marshalled as keys."""
    assert lane_safe(tree)


@pytest.mark.parametrize(
    "tree",
    [b"a", bytearray(b"a"), memoryview(b"a"), [b"a"], {"a": b"a"}, {b"a": 1}, {True: 1}, {None: 1}, {1.0: 1}, {(): 1},
     {1}, frozenset(), Path("a"), ..., 1j, ([object()],), int, [Frozen("a")]],
)  # fmt: skip
def test_lane_refuses_the_rest(tree: Any) -> None:
    """Buffers, which lose their type in marshal, and every other type are refused at any depth."""
    assert not lane_safe(tree)


def test_lane_ends_on_cycles() -> None:
    """A cyclic tree is refused, not walked for ever."""
    tree: list[Any] = []
    tree.append(tree)
    assert not lane_safe(tree)


def run_script(path: Path, *, seed: str = "0", python: str = sys.executable) -> str:
    environment = {**os.environ, "PYTHONHASHSEED": seed}
    done = subprocess.run([python, "-B", str(path)], capture_output=True, text=True, check=True, env=environment)  # noqa: S603
    return done.stdout.strip()


BARE = f"""
import sys, types
package = types.ModuleType("cachekit")
package.__path__ = [{str(ROOT / "cachekit")!r}]  # without its __init__: orjson is all that keys need
sys.modules["cachekit"] = package
from cachekit.keys.keyer import Keyer
from cachekit.model import Policy
"""
SCRIPT = """
MODEL = "m"
def ask(x, *, y=frozenset({"a", "b", "c"}), **kw):
    def helper(): return {"one", "two", "three"}
    return MODEL, x, y, helper, x in {"p", "q", "r"}
print(Keyer(ask, policy=Policy()).key(({1: {"z", "y"}, "k": 2.5},), {"f": lambda v: v}, namespace="n", sample=0))
"""


def interpreters() -> list[str]:
    """Pythons at hand that have orjson: pyenv's own, and the venvs named by KEY_TEST_PYTHONS (colon-separated)."""
    extra = os.environ.get("KEY_TEST_PYTHONS", "").split(os.pathsep)
    paths = [
        *sorted(Path("~/.pyenv/versions").expanduser().glob("3.1[0-4]*/bin/python")),
        *map(Path, filter(None, extra)),
    ]
    probe = ["-c", "import orjson"]
    return [str(p) for p in paths if subprocess.run([p, *probe], capture_output=True, check=False).returncode == 0]  # noqa: S603


@pytest.mark.parametrize("python", [sys.executable, *interpreters()])
def test_keys_agree_between_processes_hash_seeds_and_versions(tmp_path: Path, python: str) -> None:
    """Another process with another hash seed, place and Python computes the same key for the same script."""
    (tmp_path / "a").mkdir()
    for name in ("a/one.py", "two.py"):
        (tmp_path / name).write_text(BARE + SCRIPT)
    here = run_script(tmp_path / "a" / "one.py", seed="1")
    assert here.startswith("n/")
    assert run_script(tmp_path / "two.py", seed="2", python=python) == here


@pytest.mark.parametrize("edited", [SCRIPT.replace('"m"', '"n"'), SCRIPT.replace('"p"', '"s"')])
def test_other_scripts_and_edits_have_other_keys(tmp_path: Path, edited: str) -> None:
    """An edited constant and an edited body are different; a comment, and code that is not reached, are not."""
    outputs = []
    for number, text in enumerate(
        (SCRIPT, edited, SCRIPT.replace("def ask", "# why\n\ndef ask") + "def other(): pass\n")
    ):
        (tmp_path / f"s{number}.py").write_text(BARE + text)
        outputs.append(run_script(tmp_path / f"s{number}.py"))
    assert outputs[0] != outputs[1]
    assert outputs[0] == outputs[2]


def test_policy_fields_beside_the_key_do_not_count() -> None:
    """TTL, pin and the like do not change which call it is."""
    policy = Policy()
    other = replace(policy, ttl=5.0, pin=True, share=False, encrypt=False)
    assert Keyer(ask, policy=policy).key(("a",), {}, namespace="n") == Keyer(ask, policy=other).key(
        ("a",), {}, namespace="n"
    )
