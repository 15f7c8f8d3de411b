"""The commands about who takes part, as people call them."""

from __future__ import annotations

import json
import stat
from collections.abc import Callable
from pathlib import Path

import pytest

import tiny
from shared_seed import clock, history, identity, log
from shared_seed.admission import Admissions, Introduction, Invite
from shared_seed.errors import RecipeError
from shared_seed.folder import LOG_NAME
from shared_seed.identity import Key
from shared_seed.log import Contents, RunLog
from shared_seed.manifest import Admission, Limits, Manifest, TensorSpec
from shared_seed.noise import Family
from shared_seed.proofs import Order
from shared_seed.settings import Settings

Call = Callable[..., tuple[int, str, str]]

GUEST = Key(b"\x02" * 32).public
MINE = "5e" * 32
"""The secret of the key file that tests have."""


def begun(folder: Path, admission: Admission, owner: bytes) -> Manifest:
    """A run folder with the log of a run that has just begun."""
    manifest = Manifest(
        run="0123456789abcdef0123456789abcdef",
        owner=owner.hex(),
        admission=admission,
        model="tiny",
        frozen_digest="c0ffee",
        tensors=(TensorSpec(name="w", shape=(3, 2), family=Family.DENSE, exponent=21, digest="ab"),),
        epsilon=2.0**-8,
        scale_exponent=0,
        rounds=9,
        start_with=1,
        limits=Limits(learning_rate=0.5, samples_per_message=255),
    )
    folder.mkdir()
    signers = [Key(bytes.fromhex(MINE)), Key(b"\x02" * 32)]
    signature = next((manifest.sign(key) for key in signers if key.public == owner), b"")
    RunLog.create(folder / LOG_NAME, Contents(manifest, signature=signature)).close()
    return manifest


def test_key_prints_the_public_key_and_never_the_secret(call: Call) -> None:
    public = Key(bytes.fromhex(MINE)).public.hex()
    code, out, _ = call("key")
    assert code == 0
    assert out.splitlines() == [f"key       {public}", f"file      {identity.key_path()}"]
    code, out, _ = call("key", "--json")
    assert code == 0
    assert json.loads(out) == {"key": public, "file": str(identity.key_path())}
    assert MINE not in out


def test_key_makes_a_key_where_there_is_none(call: Call, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    path = tmp_path / "config" / "key"
    monkeypatch.setenv(identity.VARIABLE, str(path))
    first, again = call("key", "--json"), call("key", "--json")
    assert first == again
    assert json.loads(first[1]) == {"key": identity.load(path).public.hex(), "file": str(path)}
    assert stat.S_IMODE(path.stat().st_mode) == 0o600


def test_key_tells_of_a_damaged_file(call: Call, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    path = tmp_path / "key"
    path.touch(mode=0o600)
    monkeypatch.setenv(identity.VARIABLE, str(path))
    code, out, err = call("key")
    assert (code, out) == (1, "")
    assert "is damaged: expected 64 hex digits" in " ".join(err.split())


def test_invites_admit_to_the_run_in_the_folder(call: Call, tmp_path: Path) -> None:
    manifest = begun(tmp_path / "run", Admission(mode="invite"), identity.load().public)
    code, out, err = call("invite", tmp_path / "run", "-n", 3)
    assert code == 0, err
    tokens = out.splitlines()
    assert len(set(tokens)) == 3
    assert "join ADDRESS --invite TOKEN" in err
    door = Admissions(manifest.seal, manifest.owner_bytes, manifest.admission)
    for token in tokens:
        ticket = Invite.parse(token).admit(Key(b"\x02" * 32), manifest.seal)
        assert door.note(Introduction(GUEST, b"label 01", ticket)) is None
    assert len(call("invite", tmp_path / "run")[1].splitlines()) == 1


@pytest.mark.parametrize(
    ("admission", "owner", "message"),
    [
        (Admission(), None, "is open: everybody may join it, and no invite is needed"),
        (Admission(mode="keys"), None, "admits the keys that were listed when it began, and no invites"),
        (Admission(mode="invite"), GUEST, f"only the owner of the run in run, {GUEST.hex()}, can invite to it"),
    ],
)
def test_who_cannot_invite_is_told_why(
    call: Call, tmp_path: Path, admission: Admission, owner: bytes | None, message: str
) -> None:
    begun(tmp_path / "run", admission, owner or identity.load().public)
    code, out, err = call("invite", "run")
    assert (code, out) == (1, "")
    assert message in " ".join(err.split())


def test_invites_need_a_log(call: Call) -> None:
    code, _, err = call("invite", "nowhere")
    assert code == 1
    assert "cannot read the gradient log nowhere/gradients.sslog" in " ".join(err.split())


@pytest.mark.parametrize("count", ["0", "-1", "many"])
def test_a_number_of_invites_is_positive(call: Call, count: str) -> None:
    assert call("invite", "run", "-n", count)[0] == 2


def test_a_mistyped_invite_ends_before_anything_is_dialled(call: Call) -> None:
    token = str(Invite.issue(Key.fresh(), bytes(16)))
    wrong = token[:9] + ("A" if token[9] != "A" else "B") + token[10:]
    code, _, err = call("join", "tcp://127.0.0.1:1", "--invite", wrong)
    assert code == 1
    assert "the invite has a typing error" in " ".join(err.split())


def test_settings_take_an_invite_and_show_it_to_nobody() -> None:
    token = str(Invite.issue(Key.fresh(), bytes(16)))
    assert token not in repr(Settings(invite=token))
    with pytest.raises(RecipeError, match="copy the whole token"):
        Settings(invite=token[1:])


def test_the_admission_of_the_command_line_takes_the_place_of_the_recipes(call: Call, tmp_path: Path) -> None:
    words = ("run", tiny.recipe(tmp_path), "--local", 2, "--quick", "-o", tmp_path / "run")
    code, _, err = call(
        *words, "--admit", "keys", "--key", GUEST.hex().upper(), "--key", identity.load().public.hex()
    )
    assert code == 0, err
    terms = log.read(tmp_path / "run" / LOG_NAME).manifest.recipe
    assert terms is not None
    assert terms["swarm"]["admission"] == "keys"
    assert terms["swarm"]["keys"] == [GUEST.hex(), identity.load().public.hex()]


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("--key", GUEST.hex()), "keys are listed, but admission is open to everybody"),
        (("--admit", "keys", "--key", GUEST.hex()[1:]), "is not a peer's key; expected the 64 hex digits"),
    ],
)
def test_a_wrong_admission_ends_in_one_message(
    call: Call, tmp_path: Path, words: tuple[str, ...], message: str
) -> None:
    code, _, err = call("run", tiny.recipe(tmp_path), *words)
    assert code == 1
    assert message in " ".join(err.split())
    assert not (tmp_path / "runs").exists()


def test_an_unknown_admission_shows_usage(call: Call) -> None:
    code, _, err = call("run", "x.yaml", "--admit", "friends")
    assert code == 2
    assert "'open', 'keys', 'invite'" in err


@pytest.mark.parametrize("ahead", [0, 10_000], ids=["in the same second", "after the clock went back"])
def test_the_last_order_counts_whatever_the_clock_says(call: Call, tmp_path: Path, ahead: int) -> None:
    folder = tmp_path / "run"
    owner = Key(bytes.fromhex(MINE))
    manifest = begun(folder, Admission(), owner.public)
    path = folder / LOG_NAME
    running = RunLog.resume(path, log.read(path))
    running.append([Order.issue(owner, manifest.seal, clock.stamp() + ahead, GUEST, True)], [])
    running.close()
    assert history.archive_of(log.read(path)).is_out(GUEST)
    for command, banned in (("unban", False), ("ban", True), ("unban", False)):
        code, _, err = call(command, GUEST.hex(), "--run", str(folder))
        assert code == 0, err
        assert history.archive_of(log.read(path)).is_out(GUEST) == banned
