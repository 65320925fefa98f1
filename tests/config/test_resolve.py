"""Settings: who wins, what is accepted, what is said about it. Everything runs on a mapping and a real directory."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Mapping
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from cachekit.config import ci
from cachekit.config.durations import seconds
from cachekit.config.resolve import Resolved, explain, render_table, resolve
from cachekit.config.settings import TABLE
from cachekit.errors import UsageError
from cachekit.files.places import cache_dir

HOME = {"HOME": "/home/ann"}
PAGE = Path(__file__).parents[2] / "docs" / "configuration.md"


def settle(environ: Mapping[str, str] | None = None, /, **overrides: object) -> Resolved:
    return resolve({**HOME, **(environ or {})}, overrides=overrides, toml=None)


def value(environ: Mapping[str, str], setting: str) -> Any:
    return getattr(settle(environ).settings, setting)


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A directory to search from: nothing above it says anything of cachekit."""
    below = tmp_path / "a" / "b"
    below.mkdir(parents=True)
    monkeypatch.chdir(below)
    return tmp_path


def test_nothing_configured(monkeypatch: pytest.MonkeyPatch) -> None:
    """With nothing said the defaults of DESIGN hold, and each says 'default'."""
    monkeypatch.setenv("HOME", "/home/ann")
    monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
    resolved = settle()
    s = resolved.settings
    assert (s.mode, s.strict, s.ipfs, s.namespace, s.ttl, s.ipfs_timeout) == (
        "on",
        False,
        "auto",
        "default",
        3600,
        0.25,
    )
    assert (s.size_limit, s.memory_limit, s.dir) == (4 * 10**9, 128 * 10**6, Path("/home/ann/.cache/cachekit"))
    assert (s.secret, s.secret_file, s.ipfs_api, s.ipfs_auth) == (None, None, None, None)
    assert {resolved.reason(v.setting) for v in TABLE} == {"default"}
    assert resolved.warnings == ()


def test_layers_win_in_order(tmp_path: Path) -> None:
    """configure() beats the environment, the environment the file, the file the default; each is named."""
    file = tmp_path / "cachekit.toml"
    file.write_text('namespace = "file"\nttl = "2h"\nmode = "replay"\n')
    environ = {**HOME, "CACHEKIT_NAMESPACE": "env", "CACHEKIT_TTL": "3h"}
    resolved = resolve(environ, overrides={"namespace": "call"}, toml=file)
    s = resolved.settings
    assert (s.namespace, s.ttl, s.mode, s.strict) == ("call", 3 * 3600, "replay", False)
    assert [resolved.origins[n].source for n in ("namespace", "ttl", "mode", "strict")] == [
        "configure", "environment", "file", "default",
    ]  # fmt: skip
    assert [resolved.reason(n) for n in ("namespace", "ttl", "mode")] == [
        'configure(namespace="call")', "CACHEKIT_TTL=3h", "cachekit.toml mode",
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("1", True),
        ("TRUE", True),
        ("Yes", True),
        ("on", True),
        ("0", False),
        ("False", False),
        ("no", False),
        ("OFF", False),
    ],
)
def test_booleans(text: str, expected: bool) -> None:
    """The eight words of DESIGN are booleans in any case."""
    assert value({"CACHEKIT_STRICT": text}, "strict") is expected


@pytest.mark.parametrize(
    ("name", "text", "accepted"),
    [
        ("CACHEKIT_STRICT", "maybe", "1/true/yes/on or 0/false/no/off"),
        ("CACHEKIT_STRICT", "2", "1/true/yes/on"),
        ("CACHEKIT_MODE", "readonly", "on, off, refresh, read-only, replay"),
        ("CACHEKIT_IPFS", "yes", "auto, off, ro, rw"),
        ("CACHEKIT_TTL", "1 fortnight", "24h"),
        ("CACHEKIT_TTL", "-1", "forever"),
        ("CACHEKIT_TTL", "nan", "forever"),
        ("CACHEKIT_TTL", "1e9999", "forever"),
        ("CACHEKIT_SIZE_LIMIT", "0", "512MB"),
        ("CACHEKIT_SIZE_LIMIT", "4 GX", "4GB"),
        ("CACHEKIT_SIZE_LIMIT", "9" * 5000, "4GB"),
        ("CACHEKIT_MEMORY_LIMIT", "512M", "512MB"),
        ("CACHEKIT_IPFS_TIMEOUT", "0", "more than 0"),
        ("CACHEKIT_IPFS_TIMEOUT", "forever", "more than 0"),
        ("CACHEKIT_NAMESPACE", "a\nb", "one line"),
        ("CACHEKIT_IPFS_API", "http://localhost:5001", "/ip4/127.0.0.1/tcp/5001"),
        ("CACHEKIT_IPFS_API", "/ip4/127.0.0.256/tcp/5001", "/ip4/"),
        ("CACHEKIT_IPFS_API", "/ip4/127.0.0.1/tcp/70000", "/ip4/"),
        ("CACHEKIT_IPFS_API", "/ip4/127.0.0.1/udp/5001", "/ip4/"),
        ("CACHEKIT_LOG", "loud", "debug, info, warning, error, off"),
        ("IPFS_KIT_DISABLE", "perhaps", "1/true/yes/on or 0/false/no/off"),
        ("STORAGE_FORCE_LOCAL", "2", "1/true/yes/on or 0/false/no/off"),
    ],
)
def test_bad_value_names_variable_and_accepted(name: str, text: str, accepted: str) -> None:
    """A bad value is a UsageError that names the variable and what would have been accepted."""
    with pytest.raises(UsageError) as caught:
        settle({name: text})
    assert name in str(caught.value)
    assert accepted in str(caught.value)
    assert len(str(caught.value)) < 400


def test_bad_value_below_a_good_one_is_still_raised() -> None:
    """A bad variable is reported at once, not on the day that configure() no longer hides it."""
    with pytest.raises(UsageError, match="CACHEKIT_TTL"):
        settle({"CACHEKIT_TTL": "soon"}, ttl=5)


@pytest.mark.parametrize("text", ["", "  "])
@pytest.mark.parametrize("name", [v.name for v in TABLE] + list(ci.LEGACY) + ["CI", "BUILD_ID"])
def test_empty_variable_is_unset(name: str, text: str) -> None:
    """An empty variable counts as unset, for every variable that is looked at."""
    assert settle({name: text}) == settle()


@pytest.mark.parametrize(
    ("text", "size"),
    [
        ("123", 123),
        ("0", 0),
        ("512MB", 512 * 10**6),
        ("4GB", 4 * 10**9),
        ("1GiB", 2**30),
        ("1.5 kB", 1500),
        ("2kib", 2048),
    ],
)
def test_sizes(text: str, size: int) -> None:
    """Plain bytes, powers of 1000, powers of 1024; 0 is a size for the memory tier."""
    assert value({"CACHEKIT_MEMORY_LIMIT": text}, "memory_limit") == size


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ("30m", 1800), ("24h", 86400), ("7d", 604800), ("90", 90), ("0.5", 0.5), ("500ms", 0.5),
        (" 1H ", 3600), ("2w", 1209600),
        ("none", None), ("Forever", None), (None, None), (0, 0), (1.5, 1.5), (timedelta(minutes=2), 120),
    ],
)  # fmt: skip
def test_seconds(given: object, expected: float | None) -> None:
    """Durations are numbers, timedeltas or text with a unit; None and 'forever' mean for ever; 0 is allowed."""
    assert seconds(given, "ttl") == expected


@pytest.mark.parametrize(
    "given",
    [
        -1,
        -0.1,
        float("nan"),
        float("inf"),
        True,
        False,
        "",
        "h",
        "1x",
        "-5s",
        "٣s",
        timedelta(-1),
        [],
        b"1",
        1e300,
        10**400,
    ],
)
def test_seconds_refuses(given: object) -> None:
    """Whatever is no duration is a UsageError naming the parameter."""
    with pytest.raises(UsageError, match="stale_if_error"):
        seconds(given, "stale_if_error")


def test_explicit_none_is_for_ever() -> None:
    """configure(ttl=None) means for ever, whatever CACHEKIT_TTL says; the text of the reason says so."""
    resolved = settle({"CACHEKIT_TTL": "5"}, ttl=None)
    assert resolved.settings.ttl is None
    assert resolved.reason("ttl") == "configure(ttl=None)"


def test_overrides_take_python_values() -> None:
    """configure() takes the objects a program has: Path, timedelta, bool, int."""
    s = settle(dir=Path("/x"), ttl=timedelta(hours=2), strict=True, size_limit=4e9, ipfs_timeout=1).settings
    assert (s.dir, s.ttl, s.strict, s.size_limit, s.ipfs_timeout) == (Path("/x"), 7200, True, 4 * 10**9, 1.0)


@pytest.mark.parametrize(
    "overrides", [{"mode": None}, {"size_limit": True}, {"namespace": 3}, {"dir": 5}, {"log": ["info"]}]
)
def test_overrides_of_the_wrong_type(overrides: dict[str, object]) -> None:
    """A value of the wrong type is a UsageError naming the argument, never a TypeError."""
    with pytest.raises(UsageError, match=rf"configure\({next(iter(overrides))}=\)"):
        settle({}, **overrides)


def test_unknown_override_names_the_accepted() -> None:
    """A misspelt configure() argument is refused with the accepted keys and the one that was meant."""
    with pytest.raises(UsageError, match=r"did you mean namespace.*accepted: mode, strict") as caught:
        settle(namespce="x")
    assert "memory_limit" in str(caught.value)


def test_unknown_key_in_file(tmp_path: Path) -> None:
    """A misspelt key in the file is refused, naming the file and the accepted keys."""
    file = tmp_path / "cachekit.toml"
    file.write_text("tll = 3\n")
    with pytest.raises(UsageError, match=r"cachekit\.toml: unknown setting 'tll', did you mean ttl\?; accepted: mode"):
        resolve(HOME, toml=file)


def test_unknown_variable_is_a_warning() -> None:
    """An unknown CACHEKIT_ variable warns with the close match and never with its value."""
    (warning,) = settle({"CACHEKIT_SECRETS": "hunter2", "CACHEKIT_REQUIRE": "ipfs"}).warnings
    assert "CACHEKIT_SECRETS" in warning
    assert "did you mean CACHEKIT_SECRET?" in warning
    assert "hunter2" not in warning


CI_CASES = [
    ({"GITHUB_ACTIONS": "true", "CI": "true"}, "GITHUB_ACTIONS"),
    ({"GITLAB_CI": "true"}, "GITLAB_CI"),
    ({"BUILD_ID": "0"}, "BUILD_ID"),
    ({"JENKINS_URL": "http://j/"}, "JENKINS_URL"),
    ({"CIRCLECI": "true"}, "CIRCLECI"),
    ({"TRAVIS": "true"}, "TRAVIS"),
    ({"TF_BUILD": "True"}, "TF_BUILD"),
    ({"BUILDKITE": "true"}, "BUILDKITE"),
    ({"CI": "yes"}, "CI"),
    ({"CI": "woodpecker"}, "CI"),
    ({"CI": "false", "GITHUB_ACTIONS": "true"}, "GITHUB_ACTIONS"),
]


@pytest.mark.parametrize(("environ", "name"), CI_CASES)
def test_ci_turns_ipfs_off(environ: dict[str, str], name: str) -> None:
    """Every vendor turns IPFS off by default and is named; CI=false does not silence a vendor's own variable."""
    resolved = settle(environ)
    assert resolved.settings.ipfs == "off"
    assert resolved.origins["ipfs"].source == "ci"
    assert resolved.reason("ipfs") == f"CI detected: {name}"


@pytest.mark.parametrize(
    "environ", [{"CI": "false"}, {"CI": "0"}, {"CI": "False"}, {"GITHUB_ACTIONS": "false"}, {"CI": "off"}]
)
def test_ci_false_is_not_ci(environ: dict[str, str]) -> None:
    """A variable that says no is not CI."""
    assert settle(environ).settings.ipfs == "auto"


@pytest.mark.parametrize("choice", ["auto", "ro", "rw"])
@pytest.mark.parametrize("refusal", [{"CI": "1"}, {"IPFS_KIT_DISABLE": "1"}, {"STORAGE_FORCE_LOCAL": "true"}])
def test_explicit_ipfs_wins(choice: str, refusal: dict[str, str]) -> None:
    """An explicit CACHEKIT_IPFS, `auto` included, wins over CI detection and over the legacy variables."""
    resolved = settle({**refusal, "CACHEKIT_IPFS": choice})
    assert resolved.settings.ipfs == choice
    assert resolved.reason("ipfs") == f"CACHEKIT_IPFS={choice}"


def test_ipfs_in_the_file_is_explicit(tmp_path: Path) -> None:
    """What the file says wins over CI and legacy variables too, and the conflict is told."""
    (tmp_path / "pyproject.toml").write_text('[tool.cachekit]\nipfs = "rw"\n')
    resolved = resolve({**HOME, "CI": "1", "IPFS_KIT_DISABLE": "on"}, toml=tmp_path / "pyproject.toml")
    assert (resolved.settings.ipfs, resolved.reason("ipfs")) == ("rw", "pyproject.toml [tool.cachekit] ipfs")
    assert "IPFS_KIT_DISABLE=on" in resolved.warnings[0]


@pytest.mark.parametrize("name", ci.LEGACY)
def test_legacy_variables_turn_ipfs_off(name: str) -> None:
    """A legacy variable turns IPFS off, comes before CI detection, and is named; a 0 says nothing."""
    resolved = settle({name: "1", "CI": "1"})
    assert (resolved.settings.ipfs, resolved.reason("ipfs")) == ("off", f"{name}=1")
    assert resolved.origins["ipfs"].source == "legacy"
    assert settle({name: "0"}).settings.ipfs == "auto"


def test_conflict_is_a_warning_only_where_there_is_one() -> None:
    """IPFS on against a legacy variable is told; off with it, and CI overruled, are nothing to tell."""
    (warning,) = settle({"CACHEKIT_IPFS": "rw", "STORAGE_FORCE_LOCAL": "1"}).warnings
    assert "CACHEKIT_IPFS=rw wins over STORAGE_FORCE_LOCAL=1" in warning
    assert settle({"CACHEKIT_IPFS": "off", "STORAGE_FORCE_LOCAL": "1"}).warnings == ()
    assert settle({"CACHEKIT_IPFS": "rw", "CI": "1"}).warnings == ()


def test_ipfs_api_says_where_never_whether() -> None:
    """In CI an address alone does not turn IPFS on."""
    s = settle({"CI": "1", "CACHEKIT_IPFS_API": "/ip4/10.0.0.1/tcp/5001"}).settings
    assert (s.ipfs, s.ipfs_api) == ("off", "/ip4/10.0.0.1/tcp/5001")


def test_a_store_says_where_never_whether() -> None:
    """Outside CI it is used; in CI, and where a legacy variable turns IPFS off, the unused one is told."""
    store = {"CACHEKIT_STORE": "file:///mnt/team"}
    s = settle(store)
    assert (s.settings.ipfs, s.settings.store, s.warnings) == ("auto", "file:///mnt/team", ())
    for off in ({"CI": "1"}, {"IPFS_KIT_DISABLE": "1"}):
        (warning,) = settle({**store, **off}).warnings
        assert "CACHEKIT_STORE is not used" in warning
        assert settle({**store, **off, "CACHEKIT_IPFS": "ro"}).settings.ipfs == "ro"
    assert settle({**store, "CACHEKIT_IPFS": "off"}).warnings == ()


@pytest.mark.parametrize(
    ("given", "read"),
    [
        ("file:///mnt/team/", "file:///mnt/team"),
        ("file:///mnt/a%20team", "file:///mnt/a%20team"),
        ("https://cache.example/team/", "https://cache.example/team"),
        ("http://[::1]:8000", "http://[::1]:8000"),
    ],
)
def test_store(given: str, read: str) -> None:
    """A directory, or a web server; without a slash at the end."""
    assert value({"CACHEKIT_STORE": given}, "store") == read


@pytest.mark.parametrize(
    "given",
    [
        *("/mnt/team", "team", "file://", "file:///", "file:mnt", "file://server/team", "file:///a%00b"),
        *("ftp://host/x", "https://", "http:///x", "https://host:0/x", "https://host:99999/x", "https://host/x?y"),
        *("https://host/x#y", "https://me:secret@host/x"),
    ],
)
def test_what_is_no_store_is_refused(given: str) -> None:
    """A path without its scheme too; a password is not repeated."""
    with pytest.raises(UsageError, match="CACHEKIT_STORE") as caught:
        settle({"CACHEKIT_STORE": given})
    assert "secret" not in str(caught.value)


@pytest.mark.parametrize(
    "address",
    ["/ip6/::1/tcp/5001", "/dns/kubo.lan/tcp/443/https", "/dns4/h/tcp/80/http", "/dns6/h/tcp/1", "/unix/run/ipfs.sock"],
)
def test_multiaddr(address: str) -> None:
    """Addresses that ipfshttpclient can speak to are accepted as they are."""
    assert value({"CACHEKIT_IPFS_API": address}, "ipfs_api") == address


def test_secrets_are_never_shown(tmp_path: Path) -> None:
    """No rendering of the settings contains a secret, from whichever layer it came."""
    file = tmp_path / "cachekit.toml"
    file.write_text('ipfs_auth = "hunter2:x"\n')
    by_env = resolve({**HOME, "CACHEKIT_SECRET": "hunter2"}, toml=file)
    by_call = settle(secret="hunter2", ipfs_auth="hunter2")
    for resolved in (by_env, by_call):
        shown = json.dumps(explain(resolved)) + repr(resolved) + repr(resolved.settings)
        shown += "".join(resolved.reason(v.setting) for v in TABLE)
        assert "hunter2" not in shown
    assert (by_env.settings.secret, by_env.reason("secret")) == ("hunter2", "CACHEKIT_SECRET=<set>")
    assert by_call.reason("secret") == "configure(secret=<set>)"
    assert {row["value"] for row in explain(by_env) if row["name"] in ("secret", "ipfs_auth")} == {"<set>"}


@pytest.mark.parametrize(
    "environ",
    [
        {"CACHEKIT_SECRET": "hunter2\nx"},
        {"CACHEKIT_IPFS_AUTH": "u:hunter2\nX: y"},
        {"CACHEKIT_IPFS_API": "http://u:hunter2@h:1"},
    ],
)
def test_errors_do_not_show_secrets(environ: dict[str, str]) -> None:
    """A refused secret, or a URL with a password in place of an address, is not repeated by the error or its cause."""
    with pytest.raises(UsageError) as caught:
        settle(environ)
    assert "hunter2" not in str(caught.value)
    assert caught.value.__cause__ is None
    assert caught.value.__context__ is None


def test_the_default_directory_is_the_platforms_place(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where nobody says `dir`, the cache lies where this platform has caches: $XDG_CACHE_HOME/cachekit on Linux."""
    monkeypatch.setenv("XDG_CACHE_HOME", "/c")
    assert value({}, "dir") == cache_dir() == Path("/c/cachekit")
    assert value({"CACHEKIT_DIR": "/d"}, "dir") == Path("/d")


def test_paths_are_absolute(project: Path) -> None:
    """`~` is the environment's home, a relative path starts here, and one in a file starts at the file."""
    (project / "cachekit.toml").write_text('secret_file = "keys/s"\n')
    s = resolve({**HOME, "CACHEKIT_DIR": "store"}).settings
    assert (s.dir, s.secret_file) == (project / "a" / "b" / "store", project / "keys" / "s")
    assert value({"CACHEKIT_DIR": "~/x"}, "dir") == Path("/home/ann/x")


def test_search_goes_upwards(project: Path) -> None:
    """The nearest file that speaks of cachekit is read; a pyproject.toml that does not is passed."""
    (project / "a" / "pyproject.toml").write_text('[project]\nname = "x"\ndependencies = ["cachekit-ipfs"]\n')
    (project / "pyproject.toml").write_text("[tool.cachekit]\nttl = 7\nstrict = true\n")
    resolved = resolve(HOME)
    assert (resolved.settings.ttl, resolved.settings.strict, resolved.file) == (7, True, project / "pyproject.toml")
    assert resolved.reason("ttl") == "pyproject.toml [tool.cachekit] ttl"


def test_own_file_before_pyproject(project: Path) -> None:
    """In one directory cachekit.toml wins over pyproject.toml."""
    (project / "pyproject.toml").write_text("[tool.cachekit]\nttl = 7\n")
    (project / "cachekit.toml").write_text("ttl = 8\n")
    assert resolve(HOME).settings.ttl == 8


def test_broken_pyproject_of_somebody_else_is_no_error(project: Path) -> None:
    """A pyproject.toml that does not mention us is not even parsed."""
    (project / "pyproject.toml").write_text("[[[ nonsense")
    assert resolve(HOME).file is None


@pytest.mark.parametrize("text", ["ttl = [", "ttl = [1]", 'ttl = ""', "strict = 2", "[ttl]\nx = 1"])
def test_bad_file_is_named(project: Path, text: str) -> None:
    """Broken TOML and bad values are a UsageError naming the file."""
    (project / "cachekit.toml").write_text(text)
    with pytest.raises(UsageError, match=r"cachekit\.toml"):
        resolve(HOME)


@pytest.mark.parametrize("text", ["[tool]\ncachekit = 3\n", "tool = 'cachekit'\n"])
def test_odd_pyproject(project: Path, text: str) -> None:
    """A [tool.cachekit] that is no table is a UsageError; a document without one is passed."""
    (project / "pyproject.toml").write_text(text)
    if "= 3" in text:
        with pytest.raises(UsageError, match="must be a table"):
            resolve(HOME)
    else:
        assert resolve(HOME).file is None


def test_named_file_must_exist(tmp_path: Path) -> None:
    """A file given by name and missing is a UsageError."""
    with pytest.raises(UsageError, match="nowhere"):
        resolve(HOME, toml=tmp_path / "nowhere.toml")


def test_without_a_toml_parser(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where neither tomllib nor tomli can be had, only a file that speaks of cachekit is an error."""
    monkeypatch.setitem(sys.modules, "tomllib", None)
    monkeypatch.setitem(sys.modules, "tomli", None)
    pyproject = project / "pyproject.toml"
    pyproject.write_text('[project]\nname = "x"\n[project.scripts]\ncachekit = "x:y"\n')
    assert resolve(HOME).file is None
    pyproject.write_text("[tool.cachekit]\nttl = 1\n")
    with pytest.raises(UsageError, match="tomli"):
        resolve(HOME)


@pytest.mark.skipif(not hasattr(os, "getuid") or os.getuid() != 0, reason="only root can give a file away")
def test_file_that_anybody_could_have_put_there_is_ignored(project: Path) -> None:
    """A stranger's cachekit.toml in a world-writable directory is not believed, and that is said."""
    file = project / "cachekit.toml"
    file.write_text('ipfs_api = "/ip4/6.6.6.6/tcp/5001"\n')
    os.chown(file, 4242, 4242)
    project.chmod(0o1777)
    resolved = resolve(HOME)
    assert resolved.settings.ipfs_api is None
    assert str(file) in resolved.warnings[0]


def test_working_directory_that_is_gone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A deleted working directory means no file, not an exception; only a relative path needs it."""
    gone = tmp_path / "gone"
    gone.mkdir()
    monkeypatch.chdir(gone)
    gone.rmdir()
    assert resolve(HOME).file is None
    with pytest.raises(UsageError, match="working directory is gone"):
        resolve({**HOME, "CACHEKIT_DIR": "x"})


def test_resolve_looks_only_at_what_it_is_given(monkeypatch: pytest.MonkeyPatch) -> None:
    """The process environment plays no part, but for where this platform has caches."""
    monkeypatch.setenv("CACHEKIT_MODE", "nonsense")
    monkeypatch.setenv("CACHEKIT_DIR", "/elsewhere")
    monkeypatch.setenv("CI", "1")
    assert settle() == resolve(HOME, toml=None)
    assert settle().settings.ipfs == "auto"


def test_explain_has_a_row_for_each_setting() -> None:
    """`cachekit env --explain` gets one JSON row per setting, saying which layer won and why."""
    rows = explain(settle({"CACHEKIT_TTL": "none", "GITHUB_ACTIONS": "true"}))
    assert [row["variable"] for row in rows] == [v.name for v in TABLE]
    by_name = {row["name"]: row for row in json.loads(json.dumps(rows))}
    assert by_name["ttl"] == {
        "name": "ttl", "variable": "CACHEKIT_TTL", "value": "forever", "source": "environment",
        "reason": "CACHEKIT_TTL=none",
    }  # fmt: skip
    assert (by_name["ipfs"]["source"], by_name["ipfs"]["reason"]) == ("ci", "CI detected: GITHUB_ACTIONS")


@pytest.mark.parametrize("render", [render_table, ci.render_vendors])
def test_page_is_current(render: Any) -> None:
    """docs/configuration.md holds the tables as the code renders them; paste the new text where this fails."""
    assert render() in PAGE.read_text(encoding="utf-8"), render()
