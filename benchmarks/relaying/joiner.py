"""A peer without a model that fetches a run from a relay and keeps a log of it.

python -m relaying.joiner ADDRESS FOLDER MESSAGES

Prints JSON: ``began`` with what the log held, ``fetched`` at each tenth and at the end.
"""

from __future__ import annotations

import json
import sys
import time
from pathlib import Path

from relaying.run import MANIFEST, SIGNATURE, Writer, protocol
from shared_seed import folder, history, identity
from shared_seed.admission import Introduction
from shared_seed.archive import Archive
from shared_seed.log import Contents
from shared_seed.swarm.wire import State
from shared_seed.swarm.zmq import Swarm


def say(event: str, **content: float) -> None:
    """Print a line of JSON."""
    print(json.dumps({"event": event, "at": time.monotonic(), **content}), flush=True)


def main(address: str, where: Path, messages: int) -> None:
    """Fetch so many messages, then wait to be ended."""
    logged = folder.logged(where)
    log = folder.open_log(where, Contents(MANIFEST, signature=SIGNATURE), logged)
    assert log is not None
    archive = Archive(MANIFEST)
    if logged is not None:
        history.restore(archive, logged, quietly=True)
        archive.take()
    key = identity.load()
    writer = Writer(key, Introduction(key.public, b"a joiner"))
    say("began", messages=len(archive))
    swarm = Swarm(protocol(writer, "joiner", archive), key, None, [address], MANIFEST.limits.bytes_per_second)
    swarm.enter(State.LOADING, 0)
    told = -1
    while told < messages:
        swarm.wait(lambda p, now: p.archive.has_news, 1.0)
        news = swarm.ask(lambda p, now: p.take())
        log.append(news.statements, news.heard)
        held = swarm.ask(lambda p, now: len(p.archive))
        if held >= messages or held - max(told, 0) >= messages / 10:
            told = held
            say("fetched", messages=held, received=swarm.traffic.received)
    while True:
        time.sleep(1)


if __name__ == "__main__":
    main(sys.argv[1], Path(sys.argv[2]), int(sys.argv[3]))
