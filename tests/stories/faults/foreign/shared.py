"""What comes from other machines: credentials, CIDs, blocks, segments, payloads, and all that a Kubo answers."""

from __future__ import annotations

import hashlib
import json
import socket
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from stories.faults.foreign.reader import Reader, reader
from stories.faults.foreign.stored import KEY, NOW, encoded_row, replaced, row_of, stored

from cachekit.errors import IntegrityError, TierError, UsageError
from cachekit.ipfs.content.chunks import ChunkCipher
from cachekit.ipfs.content.cids import DAG_PB, FileCid, binary_cid, cid_from, digest_of, file_cid, raw_cid
from cachekit.ipfs.content.unixfs import leaves, read_file
from cachekit.ipfs.index import rows, segments
from cachekit.ipfs.index.reading import record_of
from cachekit.ipfs.index.rows import SegmentFile, alive
from cachekit.ipfs.index.segments import ENCRYPTED, PINNED, TAG_MARK, Line
from cachekit.ipfs.index.table import Table
from cachekit.ipfs.kubo.answers import boundary, message_of
from cachekit.ipfs.kubo.client import authorization
from cachekit.ipfs.kubo.http import Address, Bounded, Dialer, KeptConnection
from cachekit.ipfs.kubo.streams import download
from cachekit.ipfs.kubo.transport import KuboTransport
from cachekit.ipfs.node import repo
from cachekit.ipfs.outbox.queue import Outbox
from cachekit.ipfs.trust.ciphers import public_of
from cachekit.ipfs.trust.credential import Credential, WriterKey, writer_id
from cachekit.ipfs.trust.tokens import load_credential

OWNER = Credential(b"s" * 32, public_of(b"o" * 32), b"o" * 32)
WRITER = WriterKey(b"w" * 32, public_of(b"w" * 32), OWNER.certify(public_of(b"w" * 32)), Path("writer.key"))
LINES = [
    Line(OWNER.index_key("team", KEY.digest), 0, ENCRYPTED, b"d" * 32, 100, NOW, NOW + 10**9, 60.0, 0.5, (b"t" * 8,)),
    Line(b"k" * 16, TAG_MARK, created=NOW),
    Line(b"p" * 16, 0, PINNED, b"e" * 32, 5, NOW),
]
CID = raw_cid(b"hello")


def readers(place: Path) -> Iterator[Reader]:
    """Every reader of what other machines wrote; files are made in `place`."""
    yield from _secrets(place)
    yield from _blocks()
    yield from _index(place)
    yield from _answers()
    yield from _node(place)


def _text(data: bytes) -> str:
    return data.decode("utf-8", "surrogateescape")


def _secrets(place: Path) -> Iterator[Reader]:
    texts = [OWNER.to_text().encode(), OWNER.reader().to_text().encode()]
    yield reader("credential", lambda data: Credential.parse(_text(data)), texts, UsageError, verifies=True)
    file = place / "secret"
    file.touch(mode=0o600)
    key = place / "writers" / f"{OWNER.owner_id}.key"
    WriterKey.load(place, OWNER)

    def secret(data: bytes) -> Any:
        file.write_bytes(data)
        return load_credential(None, file)

    def writer(data: bytes) -> Any:
        key.write_bytes(data)
        return WriterKey.load(place, OWNER).id

    yield reader("credential file", secret, texts, UsageError, verifies=True, costs=5)
    yield reader("writer key", writer, [key.read_bytes()], UsageError, costs=5)
    sealed = [OWNER.seal("team", text) for text in (b"", b"payload" * 9)]
    yield reader("sealed payload", lambda data: OWNER.unseal("team", data), sealed, IntegrityError, verifies=True)
    chunks, size = ChunkCipher.of(OWNER, "team"), 40
    chunk = b"".join(chunks.sealed(_Stream(b"x" * size), size))  # type: ignore[arg-type]
    yield reader("sealed chunk", lambda data: chunks.opened(0, data, size), [chunk], IntegrityError, verifies=True)
    yield reader("RPC credential", lambda data: authorization(_text(data)), [b"user:password", b"bearer:x"], UsageError)
    addresses = [b"/ip4/127.0.0.1/tcp/5001", b"/dns/host/tcp/443/https", b"/unix/tmp/api.sock", b"/ip6/::1/tcp/80/http"]
    yield reader("multiaddr", lambda data: Address.parse(_text(data)), addresses, UsageError)


class _Stream:
    def __init__(self, data: bytes) -> None:
        self.data = data

    def read(self, size: int) -> bytes:
        piece, self.data = self.data[:size], self.data[size:]
        return piece


# -- blocks ---------------------------------------------------------------------------------------


def _blocks() -> Iterator[Reader]:
    yield reader(
        "CID", lambda data: binary_cid(_text(data)), [CID.encode(), file_cid(b"x" * (1 << 20)).encode()], IntegrityError
    )
    node, known = _dag()
    root = cid_from(DAG_PB, hashlib.sha256(node).digest())

    def verified(data: bytes) -> bytes:
        return read_file(root, {**known, root: data}.get, limit=1 << 20)

    def named(data: bytes) -> Any:
        cid = cid_from(DAG_PB, hashlib.sha256(data).digest())
        blocks = {**known, cid: data}
        assert len(read_file(cid, blocks.get, limit=1 << 20)) <= 1 << 20
        return list(leaves(cid, blocks.get))

    yield reader("file's block", verified, [node], TierError, verifies=True)
    yield reader("file's block under its own CID", named, [node], TierError)
    raw = raw_cid(b"hello")
    yield reader(
        "leaf", lambda data: read_file(raw, {raw: data}.get, limit=99), [b"hello"], IntegrityError, verifies=True
    )


def _dag() -> tuple[bytes, dict[str, bytes]]:
    """A node with two leaves, as Kubo writes it, and the blocks below it."""
    from cachekit.ipfs.content import cids

    known = {raw_cid(data): data for data in (b"hello", b"world!")}
    children = [cids._Node(binary_cid(cid), len(data), len(data)) for cid, data in known.items()]
    links = b"".join(map(cids._link, children))
    sizes = b"".join(cids._number(4, child.content) for child in children)
    unixfs = cids._number(1, 2) + cids._number(3, 11) + sizes
    assert FileCid().digest() == raw_cid(b"")
    return links + cids._bytes(1, unixfs), known


# -- the index ------------------------------------------------------------------------------------


def _index(place: Path) -> Iterator[Reader]:
    segment = segments.encode(LINES, credential=OWNER, namespace="team", writer=WRITER, sequence=7)
    yield reader("segment", lambda data: segments.decode(data, OWNER, "team"), [segment], IntegrityError, verifies=True)
    table = Table(place / "index.db", OWNER)
    table.remember("team")
    file = SegmentFile(WRITER.id, f"{7:016d}", "cid", 7, 1)

    def signed(data: bytes) -> Any:
        """A segment of a writer who is certified, and signs whatever comes."""
        read = table.read_segment(data + WRITER.sign(data), "team", writer_id(WRITER.public), file.name)
        table._database.rows("DELETE FROM entries")
        table._database.rows("DELETE FROM marks")
        table.accept("team", file, read.lines)
        return _looked_up(table)

    yield reader("signed segment", signed, [segment[:-64]], TierError, costs=10)
    row = [OWNER.namespace_id("team"), LINES[0].key, WRITER.id, *LINES[0][2:9], b"t" * 8]

    def indexed(data: bytes) -> Any:
        try:
            replaced(place / "index.db", "entries", row_of(data, 11))
        except ValueError:
            return None
        return _looked_up(table)

    yield reader("index's row", indexed, [encoded_row(row)], TierError, costs=20)
    yield _queue(place)
    yield from _payloads(table)


def _looked_up(table: Table) -> Any:
    entry = table.living("team", KEY.digest)
    if entry is None:
        return None
    assert alive(entry, NOW) is not None
    return rows.cid_of(entry), table.covers("team", entry), entry.seconds + 1, table.pins()


def _queue(place: Path) -> Reader:
    outbox = Outbox(place / "outbox.db")
    outbox.add(KEY, stored()[0])
    with_id = list(outbox.batch()[0])
    row = [1, *with_id[1:]]

    def read(data: bytes) -> Any:
        try:
            replaced(place / "outbox.db", "queue", row_of(data, len(row)))
        except ValueError:
            return None
        return [
            (item.tag_list, len(item.payload), item.text.encode("ascii")) for item in outbox.batch()
        ], outbox.pending()

    return reader("outbox's row", read, [encoded_row(row)], TierError, costs=20)


def _payloads(table: Table) -> Iterator[Reader]:
    plain = b"\x04json[1, 2]"
    sealed = OWNER.seal("team", plain)

    def entry(data: bytes, flags: int) -> Line:
        return LINES[0]._replace(digest=digest_of(raw_cid(data)), flags=flags, size=len(data))

    promised = entry(sealed, ENCRYPTED)
    yield reader(
        "shared payload", lambda data: record_of(table, "team", promised, data), [sealed], IntegrityError, verifies=True
    )
    for flags, seal in ((0, lambda data: data), (ENCRYPTED, lambda data: OWNER.seal("team", data))):

        def read(data: bytes, flags: int = flags, seal: Callable[[bytes], bytes] = seal) -> Any:
            payload = seal(data)
            record = record_of(table, "team", entry(payload, flags), payload)
            return record.codec, record.payload

        yield reader(f"named payload {flags}", read, [plain], IntegrityError)


# -- Kubo -----------------------------------------------------------------------------------------


class Told(KuboTransport):
    """A transport to which a daemon says just this."""

    told = b""

    def _bytes(self, *_: Any) -> bytes:
        return self.told


class Paired(Dialer):
    """Dials a peer that has said all it will say."""

    told = b""

    def dial(self) -> socket.socket:
        mine, self.theirs = socket.socketpair()
        self.theirs.setblocking(False)
        self.theirs.send(self.told[:100_000])
        self.theirs.shutdown(socket.SHUT_WR)
        return Bounded(fileno=mine.detach())


def _answers() -> Iterator[Reader]:
    transport = Told("/ip4/127.0.0.1/tcp/9")
    entry = {"Name": "f", "Hash": CID, "Size": 5, "Type": 0}
    calls: list[tuple[str, Callable[[], Any], Any]] = [
        ("version", transport.version, {"Version": "0.44.0-dev", "Commit": ""}),
        ("files/stat", lambda: transport.stat("/x", timeout=1), {"Hash": CID, "Size": 0, "Type": "directory"}),
        ("files/ls", lambda: transport.list("/x", timeout=1), {"Entries": [entry, entry]}),
        ("files/ls names", lambda: transport.names("/x", timeout=1), {"Entries": [entry, {"Name": "g"}]}),
        ("pin/ls", lambda: transport.pinned(CID, timeout=1), {"Keys": {CID: {"Type": "recursive", "Name": "n"}}}),
    ]
    for name, call, answer in calls:

        def read(data: bytes, call: Callable[[], Any] = call) -> Any:
            transport.told = data
            return call()

        yield reader(f"Kubo's {name}", read, [json.dumps(answer).encode()], TierError)
    yield reader("Kubo's error", message_of, [b'{"Message":"no link named","Code":0,"Type":"error"}'])
    yield from _http()


def _http() -> Iterator[Reader]:
    dialer = Paired(Address.parse("/ip4/127.0.0.1/tcp/9"), {})
    head = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\n"
    answers = [
        head + b"Content-Length: 13\r\n\r\n" + b'{"Hash":"bx"}',
        head + b'Transfer-Encoding: chunked\r\nTrailer: X-Stream-Error\r\n\r\n5\r\n{"a":\r\n2\r\n1}\r\n0\r\n\r\n',
        b"HTTP/1.1 500 Internal Server Error\r\nContent-Length: 28\r\n\r\n" + b'{"Message":"not found now!"}',
    ]

    def post(data: bytes) -> Any:
        dialer.told = data
        kept = KeptConnection(dialer)
        try:
            with boundary():
                return kept.post("version", {}, timeout=2, limit=1 << 20)
        finally:
            kept.close()
            dialer.theirs.close()

    def stream(data: bytes) -> Any:
        dialer.told = data
        try:
            return b"".join(download(dialer, "cat", {}, length=13, idle=2))
        finally:
            dialer.theirs.close()

    yield reader("Kubo's HTTP", post, answers, TierError, costs=5)
    yield reader("Kubo's stream", stream, answers[:1], TierError, costs=5)


def _node(place: Path) -> Iterator[Reader]:
    node = place / "repo"
    node.mkdir()

    def api(data: bytes) -> Any:
        (node / "api").write_bytes(data)
        return repo.recorded_api(node) + ""

    def config(data: bytes) -> Any:
        (node / "config").write_bytes(data)
        repo.configure(node, "/ip4/127.0.0.1/tcp/0")

    yield reader("node's address", api, [b"/ip4/127.0.0.1/tcp/5001"], costs=3)
    written = {"Identity": {"PeerID": "x"}, "Discovery": {"MDNS": {"Enabled": True}}, "Swarm": {"Transports": None}}
    yield reader("node's configuration", config, [json.dumps(written).encode()], UsageError, costs=10)
