"""Two peers that exchange messages over a relay, each of which notes when the other's arrive.

python -m relaying.pair ADDRESS SECONDS LOG

They hold what the log holds, as peers do that were there from the beginning. For each message they print, as JSON,
when it was sent and how long it took until the other peer had checked it.
"""

from __future__ import annotations

import json
import sys
import time
from pathlib import Path

from relaying.run import Writer, protocol
from shared_seed import history, log
from shared_seed.messages import Message
from shared_seed.swarm.protocol import Protocol
from shared_seed.swarm.wire import State
from shared_seed.swarm.zmq import Swarm

LONGEST = 30.0
"""Seconds that a message may take."""


def main(address: str, pause: float, held: Path) -> None:
    """Send a message every ``pause`` seconds, in turn, until killed."""
    contents = log.read(held)
    writers = [Writer.numbered((1 << 30) + number) for number in range(2)]
    peers = [
        Swarm(protocol(writer, "pair", history.archive_of(contents)), writer.key, None, [address], 1 << 40)
        for writer in writers
    ]
    del contents
    for peer in peers:
        peer.enter(State.TRAINING, 0)
    for peer in peers:
        peer.wait(lambda p, now: len(p.live(now)) >= 2, LONGEST)
    for number in range(1 << 20):
        for author, reader, writer in zip(peers, reversed(peers), writers, strict=True):
            began = time.monotonic()
            author.publish(Message(writer.stream, number, number, 0.25, b"\x38"))

            def has_come(p: Protocol, now: float, writer: Writer = writer, number: int = number) -> bool:
                return p.archive.count(writer.stream) > number

            came = reader.wait(has_come, LONGEST)
            seconds = time.monotonic() - began
            print(json.dumps({"event": "passed", "at": began, "seconds": seconds, "came": came}), flush=True)
            time.sleep(max(0.0, pause - seconds))


if __name__ == "__main__":
    main(sys.argv[1], float(sys.argv[2]), Path(sys.argv[3]))
