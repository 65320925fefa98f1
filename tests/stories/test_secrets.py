"""Secrets that come in by every way: no byte that is kept holds one, and no command, explanation or log shows one."""

from __future__ import annotations

import json
import logging
import os
import subprocess
import sys
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import openai
import pydantic
import pytest
from peers import shapes
from peers.scripted import scripted_server

import cachekit
from cachekit.cache.default import ROOT
from cachekit_adapters import wrap

SIZE = 20


def planted(where: str) -> str:
    """A secret of no well-known form, which says where it was planted."""
    return f"Zq9{where}".ljust(SIZE, "7")


def kept(directory: Path) -> Iterator[bytes]:
    """Every byte below the directory: as it lies there, and unpacked where it is packed."""
    for path in directory.rglob("*"):
        if path.is_file():
            data = path.read_bytes()
            yield data
            for body in (data, data[:-32]):
                try:
                    yield zlib.decompress(body)
                except zlib.error:
                    continue


def leaks(directory: Path, said: str) -> list[str]:
    """What of the planted secrets is to be read."""
    texts = [said.encode(), str(directory).encode(), *kept(directory)]
    found = {text[at : at + SIZE] for text in texts for at in _places(text)}
    return sorted(each.decode(errors="replace") for each in found)


def _places(text: bytes) -> Iterator[int]:
    at = text.find(b"Zq9")
    while at >= 0:
        yield at
        at = text.find(b"Zq9", at + 1)


def test_secrets_of_calls(own_cache: Path, caplog: pytest.LogCaptureFixture) -> None:
    """Arguments by their names, SecretStr, a URL's password, headers, tokens in texts, and what an origin raised."""
    failing = False

    @cachekit.distributed_cache(ttl="1ms", stale_if_error="1h", ignore="failing")
    def ask(text: str, api_key: str, password: pydantic.SecretStr, url: str, **more: Any) -> str:
        if failing:
            raise ConnectionError(
                f"https://u:{planted('raised')}@h refused, Authorization: Bearer {planted('raised2')}"
            )
        return "answer"

    @cachekit.distributed_cache
    def refused(text: str, api_key: str, what: Any) -> str:
        return "answer"

    said: dict[str, Any] = {
        "api_key": planted("named"),
        "password": pydantic.SecretStr(planted("secretstr")),
        "url": f"https://u:{planted('url')}@h/?api_key={planted('query')}",
        "headers": [("Authorization", f"Bearer {planted('pair')}"), ("X-Api-Key", planted("key"))],
        "more": {
            "Cookie": planted("cookie"),
            "note": f"sk-{planted('token')}",
            "line": f"X-Api-Key: {planted('line')}",
        },
    }
    told: list[str] = []
    with caplog.at_level(logging.DEBUG, logger="cachekit"):
        for text in ("a", "b"):
            ask(text, **said)
        failing = True
        assert ask("a", **said) == "answer"
        told += [str(ask.explain("a", **said)), str(ask.explain("new", **{**said, "url": "https://u:other@h"}))]
        told += [repr(part) for part in ask.key_for("a", **said).parts]
        with pytest.warns(UserWarning) as warned:
            refused("a", planted("unkeyed"), object())
    told += [str(each.message) for each in warned]
    told += [record.getMessage() for record in caplog.records]
    ROOT.cache().close()
    assert "Zq9" not in "".join(told)
    assert leaks(own_cache, str(cachekit.stats())) == []
    assert sum(1 for data in kept(own_cache) if b"<secret>" in data) > 0


def test_secrets_of_a_wrapped_client(own_cache: Path) -> None:
    """The client's key, its default headers and those of one call, its URL: the answers are kept, and none of these."""
    with scripted_server(shapes.json_reply(shapes.chat())) as server:
        url = server.url.replace("://", f"://u:{planted('url')}@")
        headers = {"Proxy-Authorization": planted("proxy"), "Cookie": planted("cookie"), "X-Api-Key": planted("key")}
        with openai.OpenAI(api_key=planted("client"), base_url=url, default_headers=headers, max_retries=0) as bare:
            client = wrap(bare)
            ask: dict[str, Any] = {"model": "m", "messages": [{"role": "user", "content": "x"}], "temperature": 0}
            for _ in range(2):
                client.chat.completions.create(**ask, extra_headers={"X-Auth-Token": planted("extra")})
            told = str(client.chat.completions.create.explain(**ask))
        assert server.count == 1
    ROOT.cache().close()
    assert leaks(own_cache, told) == []


COMMAND = {
    "option": ("--token", "{}"),
    "equals": ("--password={}",),
    "url": ("https://me:{}@host.test/x",),
    "query": ("https://host.test/?access_token={}",),
    "header": ("-H", "Authorization: Bearer {}"),
    "attached": ("-HX-Api-Key: {}",),
    "long": ("--header=Proxy-Authorization: Basic {}",),
    "cookie": ("-H", "Cookie: a={}; b=c"),
    "user": ("-u", "me:{}"),
    "users": ("--user", "me:{}"),
    "json": ('{{"api_key": "{}"}}',),
    "shell": ("curl -u me:{0} -H 'X-Api-Key: {0}' --token {0}",),
    "assigned": ("OPENAI_API_KEY={}",),
    **{form: (f"note {form}{{}} here",) for form in ("sk-", "gsk_", "hf_", "ghp_", "github_pat_", "xoxb-", "AKIA")},
}


def test_secrets_of_a_command(tmp_path: Path) -> None:
    """`cachekit run`: options, headers, curl's user, shell lines, tokens, and the environment that --env names."""
    environment = {
        **{name: value for name, value in os.environ.items() if not name.startswith("CACHEKIT_")},
        **{
            "CACHEKIT_DIR": str(tmp_path / "cache"),
            "CACHEKIT_IPFS": "off",
            "XDG_CONFIG_HOME": str(tmp_path / "config"),
        },
        **{"PYTHONPATH": str(Path(__file__).parents[2]), "API_TOKEN": planted("env")},
        "DATABASE_URL": f"db://u:{planted('envurl')}@h/x",
    }

    def cachekit_(*arguments: str) -> str:
        done = subprocess.run(
            [sys.executable, "-m", "cachekit", *arguments],
            cwd=tmp_path, env=environment, capture_output=True, text=True, check=False,
        )  # fmt: skip
        assert done.returncode == 0, done.stderr
        return done.stdout + done.stderr

    words = [word.format(planted(way.strip("-_"))) for way, words in COMMAND.items() for word in words]
    script = "import pathlib; pathlib.Path('out').write_text('made')"
    told = cachekit_(
        *("run", "--output", "out", "--env", "API_TOKEN", "--env", "DATABASE_URL", "--"),
        *(sys.executable, "-c", script, *words),
    )
    listed = cachekit_("ls", "--artifacts", "--json")
    entry = json.loads(listed)[0]
    name = entry["name"]
    shown = cachekit_("show", name)
    assert "<secret>" in shown
    told += listed + shown + cachekit_("show", "--json", name) + cachekit_("explain", entry["key"]) + cachekit_("ls")
    told += cachekit_("stats") + cachekit_("env")
    assert leaks(tmp_path / "cache", told) == []
