"""Admission: who gets in, what a ticket is worth elsewhere, and who stays when an invite is used twice."""

from __future__ import annotations

import base64
import hashlib
import string
import zlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shared_seed.admission import Admissions, Introduction, Invite
from shared_seed.errors import MessageError, RecipeError, RefusedError
from shared_seed.identity import Key, curve_public, show, verify
from shared_seed.manifest import Admission

RUN, OTHER_RUN = bytes(range(16)), bytes(16)
OWNER, STRANGER, *GUESTS = (Key(bytes([n]) * 32) for n in range(1, 8))
LISTED = Key(bytes([99]) * 32)
LABEL = b"label 01"

SEEDS = [bytes([n]) * 32 for n in range(50, 53)]
INVITES = [Invite(RUN, seed, OWNER.sign(b"shared-seed invite" + RUN + Key(seed).public)) for seed in SEEDS]
TICKETS = [[invite.admit(guest, RUN) for guest in (*GUESTS, LISTED)] for invite in INVITES]
"""By invite, then by guest; the last guest's key is listed."""

KEYS = [guest.public for guest in (*GUESTS, LISTED)]
TICKET = TICKETS[0][0]
TOKEN = str(INVITES[0])


def admissions(mode: str = "invite", *listed: Key, owner: bytes = OWNER.public, run: bytes = RUN) -> Admissions:
    keys = tuple(show(key.public) for key in listed)
    return Admissions(run, owner, Admission(mode=mode, keys=keys))  # type: ignore[arg-type]


def admits(to: Admissions, key: bytes, ticket: bytes = b"") -> bool:
    try:
        to.check(Introduction(key, LABEL, ticket))
    except RefusedError:
        return False
    return True


def links(to: Admissions) -> list[bool]:
    return [to.might_admit(curve_public(key) or b"") for key in (OWNER.public, STRANGER.public, *KEYS)]


# The bytes, by hand and without the module under test


def test_a_stream_is_of_one_run_key_and_label() -> None:
    expected = hashlib.blake2b(RUN + KEYS[0] + LABEL, digest_size=12, person=b"shared-seed peer").digest()
    assert Introduction(KEYS[0], LABEL).peer(RUN) == expected
    assert Introduction(KEYS[0], LABEL, TICKET).peer(RUN) == expected
    others = [Introduction(KEYS[1], LABEL).peer(RUN), Introduction(KEYS[0], b"label 02").peer(RUN)]
    assert expected not in [*others, Introduction(KEYS[0], LABEL).peer(OTHER_RUN)]


def test_a_ticket_is_the_documented_one() -> None:
    public, owners, holders, guests = TICKET[:32], TICKET[32:96], TICKET[96:160], TICKET[160:]
    assert len(TICKET) == 224
    assert verify(OWNER.public, b"shared-seed invite" + RUN + public, owners)
    assert verify(public, b"shared-seed guest" + RUN + KEYS[0], holders)
    assert verify(KEYS[0], b"shared-seed accept" + RUN + public, guests)


def test_a_token_is_the_documented_one() -> None:
    data = base64.b64decode(TOKEN, altchars=b"-_", validate=True)
    assert (len(TOKEN), len(data)) == (156, 117)
    assert (data[0], data[97:113]) == (1, RUN)
    assert Key(data[1:33]).public == TICKET[:32]
    assert data[33:97] == TICKET[32:96]
    assert int.from_bytes(data[113:], "little") == zlib.crc32(data[:113])


@pytest.mark.parametrize(
    ("key", "label", "ticket"),
    [
        (KEYS[0][:31], LABEL, b""),
        (KEYS[0] + b"x", LABEL, b""),
        (KEYS[0], LABEL[:7], b""),
        (KEYS[0], LABEL + b"x", b""),
        (KEYS[0], LABEL, TICKET[:223]),
        (KEYS[0], LABEL, TICKET + b"x"),
        (b"", b"", b""),
    ],
)
def test_an_introduction_of_other_sizes_is_no_message(key: bytes, label: bytes, ticket: bytes) -> None:
    with pytest.raises(MessageError, match="a key of 32 bytes, a label of 8 and a ticket of 0 or 224"):
        Introduction(key, label, ticket)


# Who gets in


def test_an_open_run_admits_everybody() -> None:
    everybody = admissions("open")
    assert admits(everybody, STRANGER.public)
    assert everybody.note(Introduction(STRANGER.public, LABEL, bytes(224))) is None
    assert all(links(everybody))
    assert everybody.excluded == set()


def test_a_run_of_listed_keys_admits_these_and_the_owner() -> None:
    listed = admissions("keys", GUESTS[0], LISTED)
    assert [admits(listed, key) for key in (OWNER.public, STRANGER.public, *KEYS)] == links(listed)
    assert links(listed) == [True, False, True, False, False, False, False, True]
    assert not admits(listed, KEYS[1], TICKETS[0][1]), "an invite is of no use there"
    with pytest.raises(RefusedError, match=f"send the run's owner, {show(OWNER.public)}, what `shared-seed key`"):
        listed.check(Introduction(KEYS[1], LABEL))


def test_a_run_by_invite_admits_owner_listed_keys_and_tickets() -> None:
    invited = admissions("invite", LISTED)
    assert admits(invited, OWNER.public)
    assert admits(invited, LISTED.public)
    assert admits(invited, KEYS[0], TICKET)
    with pytest.raises(
        RefusedError, match=f"{show(KEYS[0])}, came without one; ask .* `shared-seed invite` prints"
    ):
        invited.check(Introduction(KEYS[0], LABEL))
    with pytest.raises(RefusedError, match=r"does not admit your key.*ask for a new invite"):
        invited.check(Introduction(KEYS[1], LABEL, TICKET))


def test_without_an_owner_nobody_can_invite() -> None:
    nobody = admissions("keys", LISTED, owner=b"")
    assert links(nobody) == [False] * 7 + [True]
    assert not admits(admissions(owner=b""), KEYS[0], TICKET)


def test_links_open_with_the_introduction_and_close_with_the_exclusion() -> None:
    invited = admissions("invite", LISTED)
    small, large = sorted(KEYS[:2])
    introduction = {key: Introduction(key, LABEL, TICKETS[0][KEYS.index(key)]) for key in (small, large)}
    assert links(invited) == [True, *[False] * 6, True]
    assert invited.note(introduction[large]) is None
    assert invited.might_admit(curve_public(large) or b"")
    assert invited.note(introduction[small]) == large
    assert invited.note(introduction[large]) is None, "nothing new"
    assert invited.excluded == {large}
    assert invited.might_admit(curve_public(small) or b"")
    assert not invited.might_admit(curve_public(large) or b"")


def test_who_is_refused_is_not_noted() -> None:
    invited = admissions()
    before = links(invited)
    for ticket in (b"", TICKET):
        with pytest.raises(RefusedError):
            invited.note(Introduction(KEYS[1], LABEL, ticket))
    assert links(invited) == before
    assert invited.excluded == set()


def test_nobody_uses_an_invite_in_the_name_of_another() -> None:
    thief, victim = GUESTS[0], KEYS[1]
    made = INVITES[0].admit(thief, RUN)
    ticket = Key(SEEDS[0])
    forged = made[:96] + ticket.sign(b"shared-seed guest" + RUN + victim) + made[160:]
    invited = admissions("invite")
    with pytest.raises(RefusedError, match="does not admit your key"):
        invited.note(Introduction(victim, LABEL, forged))
    assert not invited.excluded


# An invite admits one key

pairs = st.tuples(st.integers(0, len(INVITES) - 1), st.integers(0, len(KEYS) - 1))


@given(data=st.data(), shown=st.lists(pairs, max_size=12))
def test_whatever_the_order_the_same_keys_end_excluded(data: st.DataObject, shown: list[tuple[int, int]]) -> None:
    ends = []
    for order in (shown, data.draw(st.permutations(shown)), data.draw(st.permutations(shown + shown))):
        invited = admissions("invite", LISTED)
        told = [invited.note(Introduction(KEYS[k], LABEL, TICKETS[i][k])) for i, k in order]
        newly = [key for key in told if key is not None]
        assert len(newly) == len(set(newly))
        assert set(newly) == invited.excluded, "each is told when it happens"
        ends.append((invited.excluded, links(invited)))
    assert ends[0] == ends[1] == ends[2]

    users = [{KEYS[k] for i, k in shown if i == invite} - {LISTED.public} for invite in range(len(INVITES))]
    expected = {key for keys in users for key in keys if key != min(keys)}
    assert ends[0][0] == expected
    allowed = {OWNER.public, LISTED.public, *(set().union(*users) - expected)}
    assert ends[0][1] == [key in allowed for key in (OWNER.public, STRANGER.public, *KEYS)]


def test_a_listed_key_uses_no_invite_up() -> None:
    for order in ((0, -1), (-1, 0)):
        invited = admissions("invite", LISTED)
        assert [invited.note(Introduction(KEYS[k], LABEL, TICKETS[0][k])) for k in order] == [None, None]


# What a ticket is worth elsewhere


@given(key=st.integers(0, len(KEYS) - 1), invite=st.integers(0, len(INVITES) - 1), other=st.data())
def test_a_ticket_is_for_one_key_run_and_owner(key: int, invite: int, other: st.DataObject) -> None:
    ticket = TICKETS[invite][key]
    assert admits(admissions(), KEYS[key], ticket)
    strange = other.draw(st.binary(min_size=32, max_size=32) | st.sampled_from(KEYS))
    run = other.draw(st.binary(min_size=16, max_size=16))
    assert admits(admissions(), strange, ticket) == (strange in (KEYS[key], OWNER.public))
    assert admits(admissions(run=run), KEYS[key], ticket) == (run == RUN)
    assert admits(admissions(owner=strange), KEYS[key], ticket) == (strange == KEYS[key])


@given(first=pairs, second=pairs)
def test_parts_of_two_tickets_make_no_third(first: tuple[int, int], second: tuple[int, int]) -> None:
    one, other = TICKETS[first[0]][first[1]], TICKETS[second[0]][second[1]]
    for cut in (32, 96):
        mixed = one[:cut] + other[cut:]
        assert admits(admissions(), KEYS[first[1]], mixed) == (mixed == one)


def test_each_invite_that_is_issued_is_another_and_admits() -> None:
    issued = [Invite.issue(OWNER, RUN) for _ in range(3)]
    assert len({invite.seed for invite in issued}) == 3
    assert all(admits(admissions(), KEYS[0], invite.admit(GUESTS[0], RUN)) for invite in issued)


def test_an_invite_that_another_signed_admits_nobody() -> None:
    ticket = Invite.issue(STRANGER, RUN).admit(GUESTS[0], RUN)
    assert not admits(admissions(), KEYS[0], ticket)


@pytest.mark.parametrize("bit", range(8))
def test_every_flipped_bit_of_a_ticket_is_noticed(bit: int) -> None:
    invited = admissions()
    for position in range(len(TICKET)):
        wrong = bytearray(TICKET)
        wrong[position] ^= 1 << bit
        assert not admits(invited, KEYS[0], bytes(wrong)), position


@given(position=st.integers(0, 159), change=st.integers(1, 255), key=st.integers(0, len(KEYS) - 1))
def test_a_changed_byte_of_a_ticket_is_noticed(position: int, change: int, key: int) -> None:
    wrong = bytearray(TICKETS[1][key])
    wrong[position] ^= change
    assert not admits(admissions(), KEYS[key], bytes(wrong))


# Tokens


def test_a_token_makes_the_same_tickets_as_the_invite() -> None:
    again = Invite.parse(TOKEN)
    assert again == INVITES[0]
    assert again.admit(GUESTS[0], RUN) == TICKET
    assert set(TOKEN) <= set(string.ascii_letters + string.digits + "-_")
    assert not TOKEN.startswith("-"), "it would look like an option"


def test_spaces_and_line_ends_of_mails_are_left_out() -> None:
    assert Invite.parse(f"  {TOKEN[:60]}\r\n {TOKEN[60:]}\n") == INVITES[0]


def test_an_invite_shows_no_secret_by_accident() -> None:
    assert INVITES[0].seed.hex() not in repr(INVITES[0])
    assert repr(INVITES[0].seed) not in repr(INVITES[0])


@pytest.mark.parametrize("position", range(156))
def test_every_changed_character_of_a_token_is_noticed(position: int) -> None:
    for character in {*map(chr, range(256)), "é", "А"} - {TOKEN[position]}:  # noqa: RUF001
        with pytest.raises(RecipeError, match=r"invite"):
            Invite.parse(TOKEN[:position] + character + TOKEN[position + 1 :])


@pytest.mark.parametrize("text", ["", TOKEN[:-1], TOKEN + "A", TOKEN * 2, TOKEN + "=", "join me", TOKEN[:152]])
def test_a_token_that_is_not_whole_tells_so(text: str) -> None:
    with pytest.raises(RecipeError, match=r"expected the 156 letters.*copy the whole token"):
        Invite.parse(text)


def test_two_characters_that_changed_places_are_a_typing_error() -> None:
    at = next(n for n in range(20, 150) if TOKEN[n] != TOKEN[n + 1])
    with pytest.raises(RecipeError, match="typing error"):
        Invite.parse(TOKEN[:at] + TOKEN[at + 1] + TOKEN[at] + TOKEN[at + 2 :])


def test_a_token_of_a_later_version_asks_for_a_later_release() -> None:
    content = b"\x02" + base64.urlsafe_b64decode(TOKEN)[1:113]
    token = base64.urlsafe_b64encode(content + zlib.crc32(content).to_bytes(4, "little")).decode()
    with pytest.raises(RecipeError, match=r"version 2.*install the release"):
        Invite.parse(token)


def test_an_invite_to_another_run_names_both() -> None:
    with pytest.raises(RecipeError, match=f"{RUN.hex()}, but this is run {OTHER_RUN.hex()}"):
        INVITES[0].admit(GUESTS[0], OTHER_RUN)
