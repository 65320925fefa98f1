"""The credential, its file, the writer key, and sealed payloads."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cachekit.errors import IntegrityError, UsageError
from cachekit.ipfs.trust.certificates import OWNER
from cachekit.ipfs.trust.ciphers import verify
from cachekit.ipfs.trust.credential import Credential, WriterKey
from cachekit.ipfs.trust.tokens import load_credential

ONE, OTHER = Credential.create(), Credential.create()


def test_a_credential_survives_its_text() -> None:
    """All of it: secret, owner and seed."""
    assert Credential.parse(f" {ONE.to_text()}\n") == ONE
    assert Credential.parse(ONE.reader().to_text()) == ONE.reader()


@given(st.data())
def test_an_altered_text_is_refused_without_repeating_it(data: st.DataObject) -> None:
    """One other character, or a shorter line: UsageError naming the variable, never the secret."""
    text = ONE.to_text()
    at = data.draw(st.integers(0, len(text) - 1))
    other = data.draw(st.sampled_from("ABab01-_.é "))
    altered = text[:at] + other + text[at + 1 :]
    if altered.strip() == text:
        return
    for candidate in (altered, text[:at]):
        with pytest.raises(UsageError, match="CACHEKIT_SECRET") as caught:
            Credential.parse(candidate)
        assert text[8:40] not in str(caught.value)


def test_no_repr_shows_a_secret(tmp_path: Path) -> None:
    """Neither of a credential nor of a writer key."""
    writer = WriterKey.load(tmp_path, ONE)
    shown = repr(ONE) + repr(writer)
    for secret in (ONE.secret, ONE.seed or b"", writer.seed):
        assert repr(secret) not in shown
        assert secret.hex() not in shown


def test_the_file_is_made_private_and_read_again(tmp_path: Path) -> None:
    """0600, in a directory made for it; the text wins over it."""
    file = tmp_path / "config" / "credential"
    made = load_credential(None, file)
    assert file.stat().st_mode & 0o777 == 0o600
    assert load_credential("", file) == made
    assert load_credential(OTHER.to_text(), file) == OTHER
    assert Credential.parse(file.read_text()) == made


@pytest.mark.parametrize("mode", [0o640, 0o604, 0o660])
def test_a_file_others_can_read_is_refused(tmp_path: Path, mode: int) -> None:
    """The message names the file and chmod."""
    file = tmp_path / "credential"
    file.write_text(ONE.to_text())
    file.chmod(mode)
    with pytest.raises(UsageError, match="chmod 600"):
        load_credential(None, file)


def test_a_file_of_another_user_is_refused(tmp_path: Path) -> None:
    """Whoever wrote it knows the secret."""
    file = tmp_path / "credential"
    file.write_text(ONE.to_text())
    file.chmod(0o600)
    if os.geteuid() != 0:
        pytest.skip("only root can give a file away")
    os.chown(file, 12345, -1)
    with pytest.raises(UsageError, match="yours"):
        load_credential(None, file)


def test_a_damaged_file_is_named(tmp_path: Path) -> None:
    """It is not replaced: that would cut this machine off from what the team wrote."""
    file = tmp_path / "credential"
    file.write_text(ONE.to_text()[:-5])
    file.chmod(0o600)
    with pytest.raises(UsageError, match=str(file)):
        load_credential(None, file)


def test_processes_that_create_at_once_agree(tmp_path: Path) -> None:
    """Eight start together; all print one credential and one writer, and no temporary is left."""
    code = (
        "import sys; from pathlib import Path; from cachekit.ipfs.trust.tokens import load_credential;"
        "from cachekit.ipfs.trust.credential import WriterKey; sys.stdin.read(1);"
        "c = load_credential(None, Path(sys.argv[1]) / 'credential');"
        "print(c.to_text(), WriterKey.load(Path(sys.argv[1]), c).id)"
    )
    environ = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])}
    command = [sys.executable, "-c", code, str(tmp_path)]
    pipe = subprocess.PIPE
    children = [subprocess.Popen(command, stdin=pipe, stdout=pipe, text=True, env=environ) for _ in range(8)]
    for child in children:
        assert child.stdin is not None
        child.stdin.write("x")
        child.stdin.flush()
    said = {child.communicate()[0] for child in children}
    assert len(said) == 1
    assert said != {""}
    assert sorted(path.name for path in tmp_path.iterdir()) == ["credential", "writers"]


def test_a_writer_is_certified_by_the_owner_alone(tmp_path: Path) -> None:
    """The same machine under another owner is another writer; a reading credential certifies nobody."""
    writer = WriterKey.load(tmp_path, ONE)
    assert WriterKey.load(tmp_path, ONE) == writer
    assert ONE.issuer(writer.public, writer.certificate, bytes(16)) == OWNER
    with pytest.raises(IntegrityError, match="nobody certified"):
        OTHER.issuer(writer.public, writer.certificate, bytes(16))
    assert WriterKey.load(tmp_path, OTHER).public != writer.public
    assert verify(writer.public, writer.sign(b"said"), b"said")
    with pytest.raises(UsageError, match="only reads"):
        WriterKey.load(tmp_path, ONE.reader())


@given(st.binary(max_size=5000))
def test_sealed_bytes_open_where_they_were_sealed(plain: bytes) -> None:
    """Equal content seals equally inside a namespace, and opens in no other namespace and with no other secret."""
    sealed = ONE.seal("team", plain)
    assert ONE.seal("team", plain) == sealed
    assert ONE.unseal("team", sealed) == plain
    assert ONE.seal("other", plain) != sealed
    for credential, namespace in ((ONE, "other"), (OTHER, "team")):
        with pytest.raises(IntegrityError):
            credential.unseal(namespace, sealed)


@given(st.integers(0, 10_000), st.integers(1, 255))
def test_any_altered_byte_is_noticed(at: int, change: int) -> None:
    """Nonce, content or tag; and so is any cut."""
    sealed = bytearray(ONE.seal("team", b"an answer"))
    cut = bytes(sealed[: at % len(sealed)])
    sealed[at % len(sealed)] ^= change
    for altered in (bytes(sealed), cut):
        with pytest.raises(IntegrityError):
            ONE.unseal("team", altered)


def test_derived_names_depend_on_secret_and_namespace() -> None:
    """Lengths as the segments need them; no two purposes share a value."""
    digest = bytes(32)
    made = [
        value
        for credential in (ONE, OTHER)
        for space in ("a", "b")
        for value in (
            credential.index_key(space, digest),
            credential.tag(space, "x").ljust(16, b"\0"),
            bytes.fromhex(credential.namespace_id(space)),
        )
    ]
    assert {len(value) for value in made} == {16}
    assert len(set(made)) == len(made)


def test_cryptography_is_imported_on_first_use_only() -> None:
    """A local cache never pays for it."""
    code = "import sys, cachekit.ipfs.sharing; sys.exit('cryptography' in sys.modules)"
    environ = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])}
    assert subprocess.run([sys.executable, "-c", code], env=environ, check=False).returncode == 0
