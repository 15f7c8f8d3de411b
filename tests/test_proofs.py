"""Orders of the owner and proofs of forks, as bytes and as what they prove."""

from __future__ import annotations

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shared_seed import identity
from shared_seed.errors import MessageError
from shared_seed.ledger import BLOCK
from shared_seed.messages import Message
from shared_seed.proofs import FORK_KIND, LARGEST_PROOF, Fork, Order, sign_head, signed_head
from swarming import ANN, BEN, OWNER, TERMS, Writer, ban, writer

ONE = writer(ANN, BLOCK)
OTHER = ONE.branched(3).more(BLOCK - 3, code=1)
FORK = ONE.fork(OTHER, 3, mine=5, theirs=4)


def test_an_order_has_the_documented_bytes() -> None:
    order = ban(ANN, serial=258)
    text = b"\x06\x02\x01\0\0" + ANN.public + b"\x01"
    assert order.encode() == text + order.signature
    assert len(order.encode()) == 102
    assert identity.verify(OWNER.public, b"shared-seed order" + TERMS.seal + text, order.signature)


@given(serial=st.integers(0, 2**32 - 1), banned=st.booleans())
def test_orders_are_read_as_written(serial: int, banned: bool) -> None:
    order = Order(serial, ANN.public, banned, bytes(64))
    assert Order.decode(order.encode()) == order


@pytest.mark.parametrize("length", [*range(102), 103])
def test_an_order_of_another_length_is_refused(length: int) -> None:
    with pytest.raises(MessageError):
        Order.decode((ban(ANN).encode() + b"\0")[:length])


@pytest.mark.parametrize(("position", "value"), [(0, 7), (37, 2), (37, 255)])
def test_an_order_of_another_kind_or_with_more_than_yes_or_no_is_refused(position: int, value: int) -> None:
    data = bytearray(ban(ANN).encode())
    data[position] = value
    with pytest.raises(MessageError):
        Order.decode(bytes(data))


def test_the_highest_serial_ranks_highest_and_a_ban_above_its_opposite() -> None:
    ranked = [ban(ANN, 1, False), ban(ANN, 1), ban(ANN, 2, False), ban(ANN, 2)]
    assert all(one.rank < other.rank for one, other in itertools.pairwise(ranked))


def test_an_order_comes_after_the_one_that_would_overrule_it() -> None:
    ban = Order.issue(OWNER, TERMS.seal, 7, ANN.public, True)
    unban = Order.issue(OWNER, TERMS.seal, 7, ANN.public, False)
    assert unban.after(OWNER, TERMS.seal, None) is unban
    assert ban.after(OWNER, TERMS.seal, unban) is ban
    later = unban.after(OWNER, TERMS.seal, ban)
    assert (later.serial, later.key, later.banned) == (8, ANN.public, False)
    assert identity.verify(OWNER.public, later.signed(TERMS.seal), later.signature)
    last = Order.issue(OWNER, TERMS.seal, (1 << 32) - 1, ANN.public, True)
    with pytest.raises(MessageError, match="last order"):
        unban.after(OWNER, TERMS.seal, last)


def test_a_head_is_signed_as_documented() -> None:
    head = bytes(range(32))
    assert identity.verify(ANN.public, b"shared-seed message" + head, sign_head(ANN, head))
    assert signed_head(head) == b"shared-seed message" + head


def test_a_fork_proves_itself_to_who_has_the_writer_s_key() -> None:
    FORK.check(ANN.public)
    with pytest.raises(MessageError, match="not signed"):
        FORK.check(BEN.public)


def test_a_fork_is_the_same_from_either_side() -> None:
    assert ONE.fork(OTHER, 3) == OTHER.fork(ONE, 3)


def test_forks_are_read_as_written() -> None:
    assert Fork.decode(FORK.encode()) == FORK
    assert FORK.encode()[0] == FORK_KIND


def test_the_largest_fork_is_small_enough_to_be_sent_and_logged() -> None:
    def full(code: int) -> Writer:
        one = Writer(ANN, ONE.stream)
        for number in range(BLOCK):
            message = Message(ONE.stream, number, number, 0.25, bytes([code]) * 255)
            one.extend(message)
        return one

    fork = full(1).fork(full(2), 0, BLOCK, BLOCK)
    fork.check(ANN.public)
    assert len(fork.encode()) <= LARGEST_PROOF
    assert Fork.decode(fork.encode()) == fork


WRONG = {
    "branches in the wrong order": Fork(FORK.stream, 3, FORK.head, FORK.other, FORK.one),
    "the same branch twice": Fork(FORK.stream, 3, FORK.head, FORK.one, FORK.one),
    "another head": Fork(FORK.stream, 3, bytes(32), FORK.one, FORK.other),
    "another number": Fork(FORK.stream, 4, FORK.head, FORK.one, FORK.other),
    "another stream": Fork(bytes(16), 3, FORK.head, FORK.one, FORK.other),
    "a branch beyond its block": Fork(FORK.stream, BLOCK - 1, FORK.head, FORK.one, FORK.other),
    "numbers beyond 32 bits": Fork(FORK.stream, 2**32 - BLOCK, FORK.head, FORK.one, FORK.other),
}


@pytest.mark.parametrize("fork", WRONG.values(), ids=WRONG.keys())
def test_what_is_no_proof_is_refused(fork: Fork) -> None:
    with pytest.raises(MessageError):
        fork.check(ANN.public)


def test_every_truncation_and_any_tail_is_refused() -> None:
    data = FORK.encode()
    for bad in (*(data[:n] for n in range(len(data))), data + b"\0", b"\x06" + data[1:]):
        with pytest.raises(MessageError):
            Fork.decode(bad)


@given(data=st.binary(max_size=300))
def test_random_bytes_are_no_fork(data: bytes) -> None:
    with pytest.raises(MessageError):
        Fork.decode(b"\x07" + data)
    with pytest.raises(MessageError):
        Order.decode(b"\x06" + data[:200])
