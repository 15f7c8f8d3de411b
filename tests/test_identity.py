"""Keys: what they sign, how they lie on the disk, and what is refused."""

from __future__ import annotations

import os
import stat
import subprocess
import sys
from pathlib import Path

import pytest
from nacl import bindings

from shared_seed import identity
from shared_seed.errors import KeyFileError, RecipeError
from shared_seed.identity import Key


def test_the_first_known_answer_of_rfc_8032() -> None:
    key = Key(bytes.fromhex("9d61b19deffd5a60ba844af492ec2cc44449c5697b326919703bac031cae7f60"))
    assert key.public.hex() == "d75a980182b10ab7d54bfed3c964073a0ee172f3daa62325af021a68f707511a"
    assert key.sign(b"").hex() == (
        "e5564300c360ac729086e2cc806e828a84877f1eb8e5d974d873e065224901555fb8821590a33bacc61e39701cf9b46b"
        "d25bf5f0595bbe24655141438e7a100b"
    )


def test_a_signature_is_of_one_text_by_one_key() -> None:
    key, other = Key.fresh(), Key.fresh()
    signature = key.sign(b"a byte")
    assert identity.verify(key.public, b"a byte", signature)
    assert not identity.verify(key.public, b"a bite", signature)
    assert not identity.verify(other.public, b"a byte", signature)
    assert not identity.verify(key.public, b"a byte", signature[:-1])
    assert not identity.verify(bytes(32), b"a byte", signature)
    assert not identity.verify(b"short", b"a byte", signature)


def test_the_same_key_encrypts() -> None:
    key = Key.fresh()
    assert bindings.crypto_scalarmult_base(key.curve_secret) == identity.curve_public(key.public)
    assert identity.curve_public(bytes(32)) is None


def test_a_key_is_made_once_and_for_its_owner_alone(tmp_path: Path) -> None:
    path = tmp_path / "config" / "key"
    key = identity.load(path)
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert identity.load(path).public == key.public
    assert [file.name for file in path.parent.iterdir()] == ["key"]
    assert key.seed.hex() not in repr(key)


def test_processes_that_start_together_share_one_key(tmp_path: Path) -> None:
    code = "import sys; from shared_seed import identity; print(identity.load().public.hex())"
    environment = {**os.environ, identity.VARIABLE: str(tmp_path / "key")}
    command = [sys.executable, "-c", code]
    started = [subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=environment) for _ in range(4)]
    assert len({process.communicate()[0] for process in started}) == 1


def test_a_key_that_others_may_read_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "key"
    identity.load(path)
    path.chmod(0o644)
    with pytest.raises(KeyFileError, match="chmod 600"):
        identity.load(path)


def test_a_damaged_key_is_refused_and_kept(tmp_path: Path) -> None:
    path = tmp_path / "key"
    identity.load(path)
    path.write_text("not a key")
    with pytest.raises(KeyFileError, match="64 hex digits"):
        identity.load(path)
    assert path.read_text() == "not a key"


def test_a_key_that_cannot_be_written_names_the_variable(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(KeyFileError, match=identity.VARIABLE):
        identity.load(tmp_path / "file" / "key")


@pytest.mark.parametrize("text", ["", "12", "zz" * 32, "00" * 32, "5e" * 33])
def test_what_is_no_public_key_is_refused(text: str) -> None:
    with pytest.raises(RecipeError, match="shared-seed key"):
        identity.parse(text)


def test_a_public_key_is_copied_as_text() -> None:
    public = Key.fresh().public
    assert identity.parse(f" {identity.show(public).upper()}\n") == public
