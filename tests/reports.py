"""A run in which all happened that a report can show, as a folder: real signatures, no training."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from shared_seed import history, log
from shared_seed.folder import LOG_NAME
from shared_seed.identity import Key
from shared_seed.manifest import TensorSpec
from shared_seed.messages import Message
from shared_seed.metrics import NAME as METRICS_NAME
from shared_seed.noise import Family
from swarming import ANN, BEN, CLO, OWNER, Writer, archive, ban, introduction, manifest, stream_of, writer

HOSTILE = '<script>document.title="taken"</script>"><img src=x onerror=alert(1)>'
TERMS = manifest(rounds=20).model_copy(
    update={
        "tensors": (
            TensorSpec(name="layer.q_proj.weight", shape=(64, 32), family=Family.RANK1, exponent=21, digest="ab"),
            TensorSpec(name="norm.weight", shape=(8,), family=Family.DENSE, exponent=21, digest="ab"),
        ),
        "model": HOSTILE,
    }
)


def say(key: Key, rounds: Sequence[int], codes: Sequence[int], label: int = 0, incarnation: int = 0) -> Writer:
    """A stream with a message of one code in each of these rounds."""
    made = writer(key, label=label, incarnation=incarnation, terms=TERMS)
    for number, (round_, code) in enumerate(zip(rounds, codes, strict=True)):
        made.extend(Message(made.stream, number, round_, 0.25, bytes([code])))
    return made


def lively() -> log.Contents:
    """Twenty rounds: Ann is there in all, Ben restarts in round 12 and abstains in 13, Clo joins in round 5 and is
    banned, and the owner's stream is forked at round 4.
    """
    ann = say(ANN, range(20), [0x38, 0xB8] * 10)
    ben = [say(BEN, range(8), [0x40] * 8), say(BEN, range(12, 20), [0x40, 0x7F, *[0xC0] * 6], incarnation=1)]
    clo = say(CLO, range(5, 10), [0x7E] * 5)
    one, other = (say(OWNER, range(6), [0x38] * 4 + [code] * 2) for code in (0x38, 0x40))
    kept = archive(*(w.signed for w in (ann, *ben, clo)), one.signed[:4], terms=TERMS)
    kept.accept_order(ban(CLO, terms=TERMS))
    kept.accept_fork(one.fork(other, 4))
    return finished(history.contents_of(kept, TERMS, TERMS.sign(OWNER)))


def crowd(peers: int) -> log.Contents:
    """Many peers of one key for three rounds; the last of them is forked."""
    kept = archive(terms=TERMS)
    for label in range(peers):
        kept.introduce(introduction(ANN, label))
        one = say(ANN, range(3), [0x38] * 3, label=label)
        for signed in one.signed:
            assert kept.accept(signed)
    other = say(ANN, range(3), [0x38, 0x38, 0x40], label=peers - 1)
    kept.accept_fork(one.fork(other, 2))
    return finished(history.contents_of(kept, TERMS, TERMS.sign(OWNER)))


def finished(contents: log.Contents) -> log.Contents:
    return log.Contents(
        contents.manifest,
        contents.signed,
        (len(contents.signed), bytes(32)),
        signature=contents.signature,
        statements=contents.statements,
    )


def lines(key: Key, rounds: Sequence[int], incarnation: int = 0, **more: Any) -> list[dict[str, Any]]:
    """Metrics as a process with these rounds writes them: a second, 50 bytes in and 100 out a step."""
    stream = stream_of(key, incarnation=incarnation).to_bytes().hex()
    return [
        {
            "round": round_,
            "loss": 1 - round_ / 100,
            "sent": 100 * count,
            "received": 50 * count,
            "seconds": float(count),
            "late": ["ann"] if round_ == 3 else [],
            "stream": stream,
        }
        | (more if count == 1 else {})
        for count, round_ in enumerate(rounds, 1)
    ]


def folder(to: Path) -> Path:
    """The run of :func:`lively` as its first peer leaves it, with a second peer's folder inside."""
    peer = to / "peers" / "2"
    peer.mkdir(parents=True)
    (to / LOG_NAME).write_bytes(log.encode(lively()))
    names = {stream_of(ANN).to_bytes().hex(): "ann", stream_of(BEN).to_bytes().hex(): HOSTILE}
    own = lines(ANN, range(20), names=names)
    for after, accuracy in ((1, 0.5), (10, 0.625), (20, 0.75)):
        own[after - 1]["validation"] = {"accuracy": accuracy, "loss": 0.7, "rows": 40}
    write(to / METRICS_NAME, own)
    again = {stream_of(BEN, incarnation=1).to_bytes().hex(): HOSTILE}
    write(peer / METRICS_NAME, [*lines(BEN, range(8)), *lines(BEN, range(12, 20), 1, names=again)])
    return to


def write(path: Path, objects: Sequence[dict[str, Any]]) -> None:
    path.write_text("".join(json.dumps(each) + "\n" for each in objects))
