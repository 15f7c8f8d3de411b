"""Hostile frames, by what is wrong with them."""

from __future__ import annotations

import struct
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import msgspec

from fuzzing import world
from fuzzing.world import ALICE, BOB, CAROL, OURS, OWNER, RUN, SAID, SEAL, STRANGER
from hostile.entry import SMALL_ORDER, Entry, not_reduced, sign
from shared_seed.admission import Introduction
from shared_seed.identity import Key
from shared_seed.ledger import BLOCK, Stretch, chained, first_head
from shared_seed.messages import BODY, Message, Stream
from shared_seed.proofs import Branch, Fork, Order, sign_head
from shared_seed.signed import Signed
from shared_seed.swarm import wire
from shared_seed.swarm.pulses import DEPTH

ALICES, BOBS = world.stream(ALICE).to_bytes(), world.stream(BOB).to_bytes()
PUBLISHED = {0x01: "published", 0x04: "published", 0x11: "published", 0x12: "published"}
OTHER = b"another run's id"
FLOATS = {"nan": float("nan"), "infinite": float("inf"), "negative": -0.5, "negative-zero": -0.0}


def frame(name: str, what: str, data: bytes, passed_over: bool = False, way: str = "") -> Entry:
    """A frame that is refused, or passed over."""
    way = way or PUBLISHED.get(data[0] if data else 0, "link")
    return Entry("frames", name, what, data, "" if passed_over else "MessageError", way)


def packed(*fields: Any) -> bytes:
    """A control frame of any fields at all."""
    return b"\x10" + msgspec.msgpack.encode(fields)


def entries() -> Iterator[Entry]:
    """All of them."""
    yield from _lengths()
    yield from _kinds()
    yield from _msgpack()
    yield from _links()
    yield from _chunks()
    yield from _heartbeats()
    yield from _pulses()
    yield from _messages()
    yield from _introductions()
    yield from _orders()
    yield from _forks()


def _lengths() -> Iterator[Entry]:
    for name, data in world.frames().items():
        # Half an introduction is no introduction, and half a message with its signature none either.
        yield frame(f"{name}-truncated", f"the first half of a valid {name}", data[: len(data) // 2])
        yield frame(f"{name}-cut-by-one", f"a valid {name} without its last byte", data[:-1])
        yield frame(f"{name}-and-a-byte", f"a valid {name} with a zero after it", data + b"\0")
        yield frame(f"{name}-twice", f"a valid {name} twice", data + data)


def _kinds() -> Iterator[Entry]:
    yield frame("empty", "nothing at all", b"")
    for kind in (0x00, 0x02, 0x03, 0x08, 0x13, 0x7F, 0x80, 0xFF):
        yield frame(f"kind-{kind:02x}", "a kind that there is not", bytes([kind]) + world.frames()["hello"][1:])
    for kind in (0x01, 0x04, 0x05, 0x06, 0x07, 0x10, 0x11, 0x12):
        yield frame(f"kind-{kind:02x}-alone", "a kind with nothing after it", bytes([kind]))
    swapped = {
        "pulse": 0x11,
        "message": 0x11,
        "heartbeat": 0x04,
        "fork": 0x10,
        "request": 0x07,
        "order": 0x05,
        "guest": 0x06,
    }
    for name, kind in swapped.items():
        data = bytes([kind]) + world.frames()[name][1:]
        yield frame(f"{name}-as-{kind:02x}", f"a {name} that says it is of another kind", data)


def _msgpack() -> Iterator[Entry]:
    request = b"\x10\x94\x05\xc4\x10" + ALICES
    yield frame("long-integer", "a request whose numbers are in longer forms", request + b"\xcd\x00\x03\xcc\x3c")
    yield frame("long-tag", "its tag in a longer form", b"\x10\x94\xcc\x05" + request[3:] + b"\x03\x3c")
    yield frame("long-array", "the array in a longer form", b"\x10\xdc\x00\x04" + request[2:] + b"\x03\x3c")
    long_bytes = b"\x10\x94\x05\xc5\x00\x10" + ALICES + b"\x03\x3c"
    yield frame("long-bytes", "bytes in a longer form", long_bytes)
    for name, value in {
        "float": 3.0,
        "nan": float("nan"),
        "bool": True,
        "nil": None,
        "text": "3",
        "negative": -1,
        "33-bits": 1 << 32,
        "64-bits": (1 << 64) - 1,
    }.items():
        yield frame(f"number-as-{name}", f"a request from {value!r} on", packed(5, ALICES, value, 60))
    yield frame("bytes-as-text", "a stream that is text", packed(5, "a" * 16, 3, 60))
    yield frame("text-as-bytes", "a refusal whose reason is bytes", packed(2, b"no"), way="dialled")
    yield frame("fields-left-out", "a request that relies on a default", packed(5, ALICES, 3))
    yield frame("map", "a map instead of an array", b"\x10" + msgspec.msgpack.encode({"stream": ALICES}))
    doubled = b"\x10\x83\xa4type\x05\xa6stream\xc4\x10" + ALICES + b"\xa6stream\xc4\x10" + BOBS
    yield frame("map-with-a-key-twice", "a map with a key twice", doubled)
    yield frame("nested", "20,000 arrays, one in the other", b"\x10" + b"\x91" * 20_000)
    yield frame("nested-maps", "20,000 maps, one in the other", b"\x10" + b"\x81\xa0" * 20_000)
    yield frame("nested-heartbeat", "the same as a heartbeat", b"\x11" + b"\x91" * 20_000)
    yield frame("nested-fork", "the same as a fork", b"\x07" + b"\x91" * 20_000)
    for name, head in {
        "array": b"\xdd",
        "map": b"\xdf",
        "bytes": b"\xc6",
        "text": b"\xdb",
        "extension": b"\xc9",
    }.items():
        yield frame(f"{name}-of-four-billion", "said to be that long", b"\x10\x92\x02" + head + b"\xff" * 4)
        yield frame(f"bodies-{name}-of-four-billion", "a chunk, likewise", _chunk_start() + head + b"\xff" * 4)
    yield frame("extension", "a type that nobody has defined", b"\x10\x92\x02\xd4\x01\x00")
    yield frame("reserved", "the byte that msgpack never uses", b"\x10\x92\x02\xc1")
    for tag in (12, 20, 99, -1, "Hello", None, 5.0):
        yield frame(f"tag-{tag}", "a tag that there is not", packed(tag, ALICES, 3, 60))
    yield frame("no-tag", "an empty array", b"\x10\x90")


def _chunk_start() -> bytes:
    guest = msgspec.msgpack.encode(wire.Guest.of(world.introduction(BOB)))
    return b"\x10\x96\x06\xc4\x10" + BOBS + guest + b"\x00"


def _links() -> Iterator[Entry]:
    frames, who = world.frames(), wire.Guest.of(world.introduction(ALICE))
    digest = world.MANIFEST.digest()
    for name in ("welcome", "refusal", "vacancy"):
        yield frame(f"{name}-not-dialled", f"a valid {name} of somebody whom we have not dialled", frames[name])
    yield frame("offer-to-a-peer", "the offer of a run to a peer that has one", frames["offer"])
    named = wire.Hello(BOBS, "a", who, digest)
    yield frame("hello-in-another-name", "a greeting with the stream of another peer", wire.encode(named))
    strange = wire.Guest.of(world.introduction(STRANGER))
    hello = wire.Hello(world.stream(STRANGER).to_bytes(), "a", strange, digest)
    yield frame("hello-of-a-stranger", "a greeting by a key that is not admitted", wire.encode(hello), True)
    hello = wire.Hello(ALICES, "a", who, bytes(32))
    yield frame("hello-of-another-run", "a greeting with another manifest", wire.encode(hello), True)
    yield frame("hello-with-33-bytes", "its digest is too long", packed(0, ALICES, "a", _guest(), bytes(33)))
    theirs = wire.Welcome(BOBS, "bob", who, world.PACKED, world.OWNERS)
    yield frame(
        "welcome-in-another-name", "a welcome of another peer than it says", wire.encode(theirs), way="dialled"
    )
    escape = {"escape": "\x1b[2J", "bell": "a\x07", "newline": "a\nb", "right-to-left": "a\u202eb", "del": "\x7f"}
    for name, text in escape.items():
        yield frame(f"name-{name}", "a name that a terminal would obey", packed(0, ALICES, text, _guest(), digest))
        yield frame(f"reason-{name}", "a reason that a terminal would obey", packed(2, text), way="dialled")
    raw = {"surrogate": b"\xed\xa0\x80", "cut": b"\xc3", "overlong": b"\xc0\x80", "ff": b"\xff"}
    for name, data in raw.items():
        text = bytes([0xA0 | len(data)]) + data
        yield frame(f"reason-{name}", "a reason that is no UTF-8", b"\x10\x92\x02" + text, way="dialled")
    yield frame("reason-long", "a reason of 1001 characters", packed(2, "a" * 1001), way="dialled")
    fine = [(0, bytes(8))] * 64
    for name, summaries in {
        "63": fine[1:],
        "65": [*fine, fine[0]],
        "negative": [(-1, bytes(8)), *fine[1:]],
        "62-bits": [(1 << 62, bytes(8)), *fine[1:]],
        "short-digest": [(0, bytes(7)), *fine[1:]],
        "triple": [(0, bytes(8), 0), *fine[1:]],
    }.items():
        yield frame(f"compare-{name}", "summaries out of bounds", packed(3, True, summaries))
    yield frame("compare-full-1", "a number instead of a truth value", packed(3, 1, fine))
    for name, level in {
        "short-stream": (bytes(15), 1, bytes(8)),
        "count-33-bits": (ALICES, 1 << 32, bytes(8)),
        "long-digest": (ALICES, 1, bytes(9)),
        "pair": (ALICES, 1),
    }.items():
        yield frame(f"levels-{name}", "a level out of bounds", packed(4, [level]))
    for name, fields in {"none": (3, 0), "4097": (3, 4097), "long-stream": (3, 60)}.items():
        stream = ALICES + (b"\0" if name == "long-stream" else b"")
        yield frame(f"request-{name}", "a request out of bounds", packed(5, stream, *fields))
    yield frame("marks-short", "a mark of 7 bytes", packed(8, ALICES, [bytes(7)]))
    unknown = world.stream(STRANGER).to_bytes()
    yield frame("marks-of-a-stranger", "marks of a stream that is not here", packed(8, unknown, [bytes(8)]), True)


def _guest(**changes: object) -> list[object]:
    fields = {"key": ALICE.public, "label": b"a label.", "ticket": b"", **changes}
    return [fields["key"], fields["label"], fields["ticket"]]


def body(round_: int = 0, rate: float = 0.25, codes: bytes = b"\x38") -> bytes:
    """The body of a message of any numbers at all."""
    return struct.pack("<If", round_, rate) + codes


def encoded(key: Key, *bodies: bytes, start: int = 0) -> list[bytes]:
    """Whole messages with these bodies."""
    name = world.stream(key).to_bytes()
    return [b"\x01" + name + struct.pack("<I", n) + each for n, each in enumerate(bodies, start)]


def chunk(*bodies: bytes, guest: Introduction | None = None, signatures: list[bytes] | None = None) -> bytes:
    """Bob's first messages, signed by him whatever they say."""
    after = chained(first_head(SEAL, world.stream(BOB)), encoded(BOB, *bodies))
    who = _guest(key=BOB.public) if guest is None else [guest.key, guest.label, guest.ticket]
    signed = [sign_head(BOB, after)] if signatures is None else signatures
    return packed(6, BOBS, who, 0, list(bodies), signed)


def _chunks() -> Iterator[Entry]:
    for name, rate in FLOATS.items():
        yield frame(f"chunk-rate-{name}", "signed, with this learning rate", chunk(body(rate=rate)))
    yield frame("chunk-no-codes", "a message without a code", chunk(body(codes=b"")))
    yield frame("chunk-256-codes", "a message with 256 codes", chunk(body(codes=bytes(256))))
    yield frame("chunk-no-signature", "messages, and no signature", chunk(body(), signatures=[]))
    yield frame("chunk-two-signatures", "a signature too many", chunk(body(), signatures=[bytes(64)] * 2))
    yield frame("chunk-bodies-as-text", "bodies that are text", packed(6, BOBS, _guest(), 0, ["a" * 9], [b""]))
    over = packed(6, BOBS, _guest(key=BOB.public), (1 << 32) - 1, [body(), body(1)], [bytes(64)])
    yield frame("chunk-beyond-the-last", "messages whose numbers go beyond 32 bits", over)
    for name, signature in {
        "10-bytes": b"ten bytes.",
        "empty": b"",
        "zero": bytes(64),
        "another-key": sign_head(ALICE, chained(first_head(SEAL, world.stream(BOB)), encoded(BOB, body()))),
        "another-run": sign_head(BOB, chained(first_head(OTHER, world.stream(BOB)), encoded(BOB, body()))),
    }.items():
        data = chunk(body(), signatures=[signature])
        yield frame(f"chunk-signature-{name}", "a chunk with a signature that is not the writer's", data, True)
    yield frame("chunk-65-bytes", "a signature of 65 bytes", chunk(body(), signatures=[bytes(65)]))
    yield frame("chunk-rate-2", "signed, beyond the manifest's learning rate", chunk(body(rate=2.0)), True)
    yield frame("chunk-9-samples", "signed, beyond the manifest's samples", chunk(body(codes=bytes(9))), True)
    yield frame("chunk-late-round", "signed, beyond the manifest's rounds", chunk(body(1_000_000)), True)
    yield frame("chunk-round-twice", "signed, a round twice", chunk(body(5), body(5)), True)
    yield frame("chunk-round-falls", "signed, a round before the last", chunk(body(5), body(4)), True)
    stranger = world.introduction(STRANGER)
    yield frame("chunk-of-another-guest", "the introduction is of another peer", chunk(body(), guest=stranger))
    name, who = world.stream(STRANGER).to_bytes(), [stranger.key, stranger.label, b""]
    signed = [sign_head(STRANGER, chained(first_head(SEAL, world.stream(STRANGER)), encoded(STRANGER, body())))]
    data = packed(6, name, who, 0, [body()], signed)
    yield frame("chunk-of-a-stranger", "signed by a key that is not admitted", data)
    yield frame(
        "chunk-short-ticket",
        "a ticket of 100 bytes",
        packed(6, BOBS, _guest(ticket=bytes(100)), 0, [body()], [bytes(64)]),
    )


def _beat(key: Key = ALICE, **changes: object) -> bytes:
    """A heartbeat of any fields at all, signed by a key."""
    said = world.beat(key)
    fields: dict[str, object] = {name: getattr(said, name) for name in said.__struct_fields__}
    text = msgspec.msgpack.encode([20, *{**fields, **changes}.values()])
    return b"\x11" + text + key.sign(b"shared-seed heartbeat" + SEAL + text)


def _heartbeats() -> Iterator[Entry]:
    valid = world.signed_beat(ALICE)
    yield frame("heartbeat-unsigned", "its signature is zeros", valid[:-64] + bytes(64))
    said = world.beat(ALICE)
    yield frame(
        "heartbeat-signed-by-another",
        "Bob's signature",
        wire.encode_beat(said, BOB.sign(wire.text_of(said, SEAL))),
    )
    elsewhere = wire.encode_beat(said, ALICE.sign(wire.text_of(said, OTHER)))
    yield frame("heartbeat-of-another-run", "signed for another run", elsewhere)
    yield frame(
        "heartbeat-not-reduced",
        "a signature that is valid but for its form",
        wire.encode_beat(said, sign(ALICE, wire.text_of(said, SEAL))),
    )
    yield frame("heartbeat-replayed", "one that was heard before", world.signed_beat(ALICE, 1), True)
    forged = wire.encode_beat(world.beat(OURS, wire.MOST_COUNT), bytes(64))
    yield frame("heartbeat-in-our-name", "of our own stream, not signed by us, with the last number", forged, True)
    yield frame("heartbeat-of-a-stranger", "a key that is not admitted", world.signed_beat(STRANGER))
    bobs = world.signed_beat(ALICE, stream=BOBS)
    yield frame("heartbeat-in-another-name", "Bob's stream, Alice's key", bobs)
    for name, changes in {
        "name-nan": {"name": float("nan")},
        "name-bytes": {"name": b"a"},
        "name-nil": {"name": None},
        "name-65": {"name": "a" * 65},
        "name-escape": {"name": "\x1b]0;owned\x07"},
        "state-unknown": {"state": "sleeping"},
        "state-number": {"state": 2},
        "round-nan": {"round": float("nan")},
        "round-33-bits": {"round": 1 << 32},
        "interval-negative": {"interval": -1},
        "interval-infinite": {"interval": float("inf")},
        "pace-nan": {"pace": float("nan")},
        "pace-33-bits": {"pace": 1 << 32},
        "beat-33-bits": {"beat": 1 << 32},
        "messages-62-bits": {"messages": 1 << 62},
        "held-short": {"held": bytes(15)},
        "proven-long": {"proven": bytes(9)},
        "pulse-short": {"pulse": bytes(7)},
        "pulse-long": {"pulse": bytes(9)},
        "digest-long": {"digest": bytes(33)},
        "guest-nil": {"guest": None},
        "key-short": {"guest": _guest(key=bytes(31))},
        "ticket-short": {"guest": _guest(ticket=bytes(223))},
        "stream-short": {"stream": bytes(15)},
    }.items():
        yield frame(f"heartbeat-{name}", "signed, with that field", _beat(**changes))
    for name, point in SMALL_ORDER.items():
        stream = Stream(Introduction(point, b"a label.").peer(RUN)).to_bytes()
        text = msgspec.msgpack.encode(world.beat(ALICE, stream=stream, guest=wire.Guest(point, b"a label.")))
        yield frame(
            f"heartbeat-key-{name}", "a key of small order", b"\x11" + text + SMALL_ORDER["identity"] + bytes(32)
        )


def _pulses() -> Iterator[Entry]:
    said = world.pulses(ALICE).last
    yield frame(
        "pulse-replayed", "the number that her heartbeat has stated", world.pulse(ALICE, number=said), True
    )
    yield frame("pulse-too-far", "more numbers on than are followed", world.pulse(ALICE, DEPTH + 1), True)
    yield frame("pulse-of-another", "Bob's number", world.pulse(ALICE, number=world.pulses(BOB).beat(False)), True)
    yield frame("pulse-in-another-name", "Alice's number, said to be Bob's", world.pulse(ALICE, stream=BOBS), True)
    yield frame("pulse-of-a-stranger", "of a peer that nobody has introduced", world.pulse(STRANGER), True)
    yield frame("pulse-in-our-name", "of our own stream", world.pulse(OURS), True)
    for name, number in {"zero": bytes(8), "ones": b"\xff" * 8}.items():
        yield frame(f"pulse-{name}", "a number that was guessed", world.pulse(ALICE, number=number), True)
    yield frame("pulse-over-a-link", "a valid pulse over a link", world.pulse(ALICE), way="link")


def _messages() -> Iterator[Entry]:
    valid = world.signed(ALICE, SAID)
    data, signature = valid.encode(), valid.signature
    start = data[:-64]
    yield frame("message-unsigned", "a message without a signature", world.says(ALICE, 1, SAID)[0])
    for name, other in {
        "zero": bytes(64),
        "ones": b"\xff" * 64,
        "not-reduced": not_reduced(signature),
        "another-key": sign_head(BOB, world.head(ALICE, world.says(ALICE, SAID + 1))),
        "head-alone": ALICE.sign(world.head(ALICE, world.says(ALICE, SAID + 1))),
        "point-of-small-order": SMALL_ORDER["order-8"] + signature[32:],
    }.items():
        yield frame(f"message-signature-{name}", "a signature that proves nothing", start + other)
    name = world.stream(ALICE).to_bytes()
    for what, rate in FLOATS.items():
        text = struct.pack("<B16sIIf", 4, name, SAID, SAID, rate) + b"\x38"
        yield frame(f"message-rate-{what}", "with this learning rate", text + signature)
    signalling = struct.pack("<B16sIII", 4, name, SAID, SAID, 0x7F800001) + b"\x38" + signature
    yield frame("message-rate-signalling-nan", "with that learning rate", signalling)
    yield frame("message-no-codes", "without a code", start[:29] + signature)
    yield frame("message-256-codes", "with 256 codes", start[:29] + bytes(256) + signature)
    for what, message in {
        "rate-2": Message(world.stream(ALICE), SAID, SAID, 2.0, b"\x38"),
        "9-samples": Message(world.stream(ALICE), SAID, SAID, 0.25, bytes(9)),
        "late-round": Message(world.stream(ALICE), SAID, 1_000_000, 0.25, b"\x38"),
        "last-round": Message(world.stream(ALICE), SAID, (1 << 32) - 1, 0.25, b"\x38"),
        "round-twice": Message(world.stream(ALICE), SAID, SAID - 1, 0.25, b"\x38"),
    }.items():
        after = world.head(ALICE, [*world.says(ALICE, SAID), message.encode()])
        yield frame(
            f"message-{what}", "signed, beyond what is allowed", Signed(message, sign_head(ALICE, after)).encode()
        )
    yield frame("message-again", "one that is here", world.signed(ALICE, SAID - 1).encode(), True)
    yield frame(
        "message-after-a-gap", "one that follows one we lack", world.signed(ALICE, SAID + 1).encode(), True
    )
    last = Message(world.stream(ALICE), (1 << 32) - 1, 5, 0.25, b"\x38")
    yield frame("message-last-number", "the last number there is", Signed(last, bytes(64)).encode(), True)
    yield frame(
        "message-of-a-stranger", "of a peer that nobody has introduced", world.signed(STRANGER, 0).encode(), True
    )
    yield frame("message-another-unsigned", "another one under a known number", _other(bytes(64)))


def _other(signature: bytes) -> bytes:
    return Signed(Message.decode(world.says(ALICE, 1, 3, 0x39)[0]), signature).encode()


def _introductions() -> Iterator[Entry]:
    yield frame("introduction-of-a-stranger", "a key that is not admitted", world.introduction(STRANGER).encode())
    ticket = world.guest(CAROL).ticket
    for name, other in {
        "of-another": ticket,
        "zero": bytes(224),
        "not-the-owners": ticket[:32] + bytes(64) + ticket[96:],
        "of-another-run": _ticket(OTHER),
    }.items():
        yield frame(
            f"ticket-{name}",
            "a ticket that does not admit its key",
            Introduction(STRANGER.public, b"a label.", other).encode(),
        )
    whole = world.guest(STRANGER).encode()
    yield frame(
        "ticket-not-reduced", "valid but for the form of a signature", whole[:-64] + not_reduced(whole[-64:])
    )
    for name, point in SMALL_ORDER.items():
        yield frame(f"introduction-key-{name}", "a key of small order", Introduction(point, b"a label.").encode())
    forged = SMALL_ORDER["identity"] + (SMALL_ORDER["identity"] + bytes(32)) * 3
    yield frame(
        "ticket-of-small-order",
        "an invite whose key anybody can sign for",
        Introduction(STRANGER.public, b"a label.", forged).encode(),
    )


def _ticket(run: bytes) -> bytes:
    signature = OWNER.sign(b"shared-seed invite" + run + world.TICKET.public)
    return replace(world.invite(), run=run, signature=signature).admit(STRANGER, run)


def _orders() -> Iterator[Entry]:
    valid = world.frames()["order"]
    for name, order in {
        "by-a-stranger": Order.issue(STRANGER, SEAL, 1, BOB.public, True),
        "by-a-member": Order.issue(ALICE, SEAL, 1, BOB.public, True),
        "of-another-run": Order.issue(OWNER, OTHER, 1, BOB.public, True),
        "about-the-owner": Order.issue(OWNER, SEAL, 1, OWNER.public, True),
    }.items():
        yield frame(f"order-{name}", "an order that nobody obeys", order.encode())
    yield frame("order-unsigned", "its signature is zeros", valid[:-64] + bytes(64))
    yield frame(
        "order-not-reduced", "a signature that is valid but for its form", valid[:-64] + not_reduced(valid[-64:])
    )
    yield frame("order-turned-round", "a ban that was made a pardon", valid[:37] + b"\0" + valid[38:])
    yield frame("order-banned-2", "neither ban nor pardon", valid[:37] + b"\2" + valid[38:])
    yield frame("order-serial-changed", "another serial", valid[:1] + b"\xff" * 4 + valid[5:])
    for name, point in SMALL_ORDER.items():
        forged = struct.pack("<BI32s?", 6, 1, point, True) + SMALL_ORDER["identity"] + bytes(32)
        yield frame(f"order-about-{name}", "unsigned, about a key of small order", forged)


def _accusation(fork: Fork, key: Key = ALICE) -> bytes:
    return wire.encode_accusation(wire.Accusation(fork, wire.Guest.of(world.introduction(key))))


def _branches(key: Key, number: int, one: list[bytes], other: list[bytes]) -> Fork:
    """A fork of any messages at all, signed."""
    before = world.head(key, world.says(key, number))
    branches = [
        Branch(tuple(data[BODY:] for data in said), sign_head(key, chained(before, said))) for said in (one, other)
    ]
    return Fork(world.stream(key).to_bytes(), number, before, *branches)


def _forks() -> Iterator[Entry]:
    valid = world.fork(ALICE, 5)
    one, other = ([*encoded(ALICE, branch.bodies[0], start=5)] for branch in (valid.one, valid.other))
    long = [encoded(ALICE, *(body(n, codes=bytes([code])) for n in range(5, 75)), start=5) for code in (1, 2)]
    for name, fork in {
        "alike": _branches(ALICE, 5, one, one),
        "out-of-order": _branches(ALICE, 5, other, one),
        "unsigned": replace_(valid, one=Branch(valid.one.bodies, bytes(64))),
        "not-reduced": replace_(valid, one=Branch(valid.one.bodies, not_reduced(valid.one.signature))),
        "other-unsigned": replace_(valid, other=Branch(valid.other.bodies, valid.one.signature)),
        "of-another-head": replace_(valid, head=bytes(32)),
        "of-another-number": replace_(valid, number=6),
        "beyond-its-block": _branches(ALICE, 5, *long),
        "of-bob": replace_(valid, stream=BOBS),
    }.items():
        yield frame(f"fork-{name}", "no proof", _accusation(fork))
    yield frame("fork-of-another-guest", "the introduction is of another peer", _accusation(valid, BOB))
    yield frame(
        "fork-of-a-stranger", "of a key that is not admitted", _accusation(world.fork(STRANGER, 0), STRANGER)
    )
    fields: list[Any] = list(msgspec.to_builtins(valid, builtin_types=(bytes,)))
    for name, changes in {
        "number-33-bits": {1: 1 << 32},
        "number-float": {1: 5.0},
        "short-head": {2: bytes(31)},
        "no-bodies": {3: [[], bytes(64)]},
        "129-bodies": {3: [[body()] * 129, bytes(64)]},
        "short-body": {3: [[bytes(8)], bytes(64)]},
        "long-body": {3: [[bytes(264)], bytes(64)]},
        "short-signature": {3: [[body()], bytes(63)]},
        "branch-as-map": {3: {"bodies": [], "signature": b""}},
        "rate-nan": {3: [[body(rate=float("nan"))], bytes(64)]},
        "rate-negative-zero": {3: [[body(rate=-0.0)], bytes(64)]},
    }.items():
        wrong = [changes.get(index, value) for index, value in enumerate(fields)]
        text = b"\x07" + msgspec.msgpack.encode(wrong)
        yield frame(f"fork-{name}", "a proof with that in it", b"\x07" + msgspec.msgpack.encode([_guest(), text]))
    text = valid.encode().replace(b"\xc4\x10" + ALICES + b"\x05", b"\xc4\x10" + ALICES + b"\xcc\x05")
    yield frame(
        "fork-long-integer", "a number in a longer form", b"\x07" + msgspec.msgpack.encode([_guest(), text])
    )
    yield frame("fork-without-guest", "a proof without an introduction", valid.encode())


def replace_(fork: Fork, **changes: Any) -> Fork:
    """The fork with other fields."""
    return msgspec.structs.replace(fork, **changes)


def large() -> dict[str, bytes]:
    """Frames that are too large for files: each is made when it is needed."""
    claims = [(world.stream(ALICE).peer + n.to_bytes(4, "little"), 1, bytes(8)) for n in range((1 << 16) + 1)]
    many: tuple[Stretch, ...] = world.stretches(BOB, 4 * BLOCK)
    bodies = [data[BODY:] for stretch in many for data in stretch.encoded] * 17
    return {
        "a frame beyond the largest": b"\x10" + bytes(wire.LARGEST_FRAME),
        "levels of too many streams": packed(4, claims),
        "too many messages in a chunk": packed(6, BOBS, _guest(key=BOB.public), 0, bodies, [bytes(64)] * 68),
        "too many marks": packed(8, ALICES, [bytes(8)] * (wire.MOST_MARKS + 1)),
        "a welcome with too large a manifest": packed(1, BOBS, "b", _guest(), bytes((4 << 20) + 1), bytes(64)),
        "a fork beyond the largest": b"\x07" + msgspec.msgpack.encode([_guest(), b"\x07" + bytes(60_000)]),
        "four million arrays, one in the other": b"\x10" + b"\x91" * (4 << 20),
        "a list of a million empty lists": b"\x10\x92\x04" + b"\xdd\x00\x10\x00\x00" + b"\x90" * (1 << 20),
    }
