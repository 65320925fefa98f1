"""The one table of settings: what each is called, what it accepts, and what it is when nobody says.

A parser takes text (environment), a TOML value or a Python object (`configure()`), returns the setting's own type, and
raises ValueError without a text: `Variable.read` knows the name and the accepted values, and writes the sentence.
"""

from __future__ import annotations

import ipaddress
import re
import reprlib
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final, Literal, get_args
from urllib.parse import unquote, urlsplit

from cachekit.config.ci import BOOLEAN_TEXT, BOOLEANS
from cachekit.config.durations import DURATIONS, LONGEST_NAME, duration, number, within
from cachekit.errors import UNREADABLE, UsageError
from cachekit.model import Mode

Ipfs = Literal["auto", "off", "ro", "rw"]
Log = Literal["debug", "info", "warning", "error", "off"]

_SIZES: Final = "bytes, or '512MB', '4GB' (powers of 1000), '1GiB' (powers of 1024)"
_MULTIADDR: Final = "'/ip4/127.0.0.1/tcp/5001', ip6, dns, dns4 or dns6; then '/http' or '/https'; or '/unix/…'"
_BYTES: Final = {"": 1} | {f"{p}{i}b": b**n for i, b in (("", 1000), ("i", 1024)) for n, p in enumerate(" kmgt") if n}
_LARGEST: Final = 2**63 - 1


@dataclass(frozen=True, slots=True)
class Settings:
    """What holds for this process. Sizes in bytes, times in seconds; `ttl` None means for ever."""

    mode: Mode
    strict: bool
    dir: Path
    size_limit: int
    memory_limit: int
    ttl: float | None
    namespace: str
    patience: float
    ipfs: Ipfs
    ipfs_api: str | None
    ipfs_auth: str | None = field(repr=False)
    ipfs_timeout: float
    store: str | None
    gateways: tuple[str, ...]
    peers: tuple[str, ...]
    secret: str | None = field(repr=False)
    secret_file: Path | None
    log: Log


@dataclass(frozen=True, slots=True)
class Variable:
    """One setting. `default` is the value; None where it is computed (`dir`) or nothing; `shown` is for people."""

    setting: str
    parse: Callable[[Any], object]
    default: object
    accepted: str
    help: str
    shown: str
    secret: bool = False
    optional: bool = False

    @property
    def name(self) -> str:
        return f"CACHEKIT_{self.setting.upper()}"

    def read(self, value: object, where: str) -> Any:
        """The parsed value. Raises UsageError naming `where` it stood and what is accepted; never shows a secret."""
        if value is None and self.optional:
            return None
        try:
            return self.parse(value)
        except UNREADABLE:
            # A URL given for an address may carry a password.
            shown = "this value" if self.secret or "@" in str(value) else reprlib.repr(value)
            msg = f"{where}: {shown} is not accepted; accepted: {self.accepted}"
        raise UsageError(msg)


def _timeout(value: Any) -> float:
    return float(_positive(duration(value)))


def _size(value: Any) -> int:
    return int(within(int(number(value, _BYTES)), _LARGEST))


def _positive_size(value: Any) -> int:
    return int(_positive(_size(value)))


def _positive(number: float | None) -> float:
    if not number:
        raise ValueError
    return number


def _boolean(value: Any) -> bool:
    try:
        return BOOLEANS[str(value).strip().lower()]
    except KeyError:
        raise ValueError from None


def _one_of(kind: Any) -> Callable[[Any], object]:
    def parse(value: Any) -> object:
        word = value.strip().lower() if isinstance(value, str) else None
        if word not in get_args(kind):
            raise ValueError
        return word

    return parse


def _text(value: Any) -> str:
    """One line that can be printed and encoded: it goes into keys and HTTP headers."""
    text = value.strip() if isinstance(value, str) else ""
    if not text.isprintable() or not text:
        raise ValueError
    return text


def _namespace(value: Any) -> str:
    text = _text(value)
    within(len(text.encode()), LONGEST_NAME)
    return text


def _path(value: Any) -> Path:
    if not isinstance(value, (str, Path)) or not str(value).strip() or "\0" in str(value):
        raise ValueError
    return Path(value)


def _multiaddr(value: Any) -> str:
    address = _text(value)
    if re.fullmatch(r"/unix/.*[^/]", address):
        return address
    match = re.fullmatch(r"/(ip4|ip6|dns|dns4|dns6)/([^/\s@]+)/tcp/([0-9]{1,5})(?:/https?)?", address)
    if match is None or not 0 < int(match[3]) < 65536:
        raise ValueError
    family, host = match[1], match[2]
    if family in ("ip4", "ip6"):
        {"ip4": ipaddress.IPv4Address, "ip6": ipaddress.IPv6Address}[family](host)
    return address


def _peers(value: Any) -> tuple[str, ...]:
    peers = re.split(r"[\s,]+", value.strip()) if isinstance(value, str) else value
    for peer in peers:
        address, _, identity = _text(peer).rpartition("/p2p/")
        if _multiaddr(address).startswith("/unix/") or not re.fullmatch(r"[1-9A-HJ-NP-Za-z]{40,60}", identity):
            raise ValueError
    return tuple(peers)


def _urls(value: Any) -> tuple[str, ...]:
    urls = re.split(r"[\s,]+", value.strip()) if isinstance(value, str) else value
    for url in urls:
        parts = urlsplit(url)
        if parts.scheme not in ("http", "https") or not parts.hostname or parts.query or parts.fragment:
            raise ValueError
    return tuple(url.rstrip("/") for url in urls)


def _store(value: Any) -> str:
    text = _text(value).rstrip("/")
    parts = urlsplit(text)
    path, host = unquote(parts.path), parts.hostname
    known = parts.scheme in ("http", "https") and host if parts.scheme != "file" else host is None and path[:1] == "/"
    # A password in an address would be shown wherever the address is.
    if not known or parts.port == 0 or "@" in parts.netloc or parts.query or parts.fragment or "\0" in path:
        raise ValueError
    return text


def _words(kind: Any) -> str:
    return ", ".join(get_args(kind))


TABLE: Final = (
    Variable("mode", _one_of(Mode), "on", _words(Mode),
             "`off` goes straight to the origin, `refresh` skips reads, `read-only` never stores, "
             "`replay` never calls the origin", "`on`"),
    Variable("strict", _boolean, False, BOOLEAN_TEXT,
             "an argument that cannot be keyed and a tier that fails become exceptions", "`off`"),
    Variable("dir", _path, None, "a path; a relative one starts at the working directory, or at the file that says so",
             "where the disk tier and artifacts are kept", "`$XDG_CACHE_HOME/cachekit` or `~/.cache/cachekit`"),
    Variable("size_limit", _positive_size, 4_000_000_000, _SIZES, "room for the disk tier", "`4GB`"),
    Variable("memory_limit", _size, 128_000_000, _SIZES, "room for the memory tier; 0 turns it off", "`128MB`"),
    Variable("ttl", duration, 3600.0, DURATIONS, "how long an answer is good, unless the decorator says", "`1h`"),
    Variable("namespace", _namespace, "default", "one line of printable text, at most 1024 bytes",
             "separates what may share a cache", "`default`"),
    Variable("patience", _timeout, 10.0, "seconds, more than 0, or '30s', '2m'",
             "how long a call waits at least for another one that may be waiting for it", "`10`"),
    Variable("ipfs", _one_of(Ipfs), "auto", _words(Ipfs), "whether IPFS is read and written", "`auto`; in CI `off`"),
    Variable("ipfs_api", _multiaddr, None, _MULTIADDR,
             "where the Kubo RPC is; says where, never whether", "found by itself", optional=True),
    Variable("ipfs_auth", _text, None, "user:password, basic:user:password or bearer:token",
             "what the Kubo RPC, or the web server of `CACHEKIT_STORE`, asks for", "none", secret=True, optional=True),
    Variable("ipfs_timeout", _timeout, 0.25, "seconds, more than 0, or '250ms'",
             "the total deadline of a read from IPFS", "`0.25`"),
    Variable("store", _store, None, "'file:///mnt/team', or 'https://host/path' (or http) to read only",
             "a directory to share through instead of a Kubo daemon; says where, never whether", "none", optional=True),
    Variable("gateways", _urls, (), "http(s) URLs, separated by spaces or commas, or a list of them",
             "HTTP gateways that `fetch` asks for what no daemon has; they see the CID", "none"),
    Variable("peers", _peers, (), "multiaddrs such as '/ip4/192.0.2.7/tcp/4001/p2p/12D3Koo…', separated by spaces or commas",
             "the daemons of the team that ours connects with", "those of `cachekit node join`"),
    Variable("secret", _text, None, "the credential string of a namespace", "the credential a team shares",
             "from the file", secret=True, optional=True),
    Variable("secret_file", _path, None, "a path", "holds what `CACHEKIT_SECRET` carries; created where missing",
             "`$XDG_CONFIG_HOME/cachekit/credential`", optional=True),
    Variable("log", _one_of(Log), "warning", _words(Log), "how much cachekit logs", "`warning`"),
)  # fmt: skip
