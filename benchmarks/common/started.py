"""A process that comes up, loads a model and does one thing with it; says when each part was done.

python -m common.started WAY FOLDER ROWS TOKENS DEVICE
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Iterable

from common.workloads import Workload, batch, build

WAYS = ("inference", "ours")


def main(words: Iterable[str]) -> None:
    """Print as JSON the monotonic clock, which all processes share, at the end of each part."""
    way, folder, rows, length, device = words
    model = build(folder, device)
    work = Workload(model, batch(model, int(rows), int(length)))
    stamps = {"loading": time.monotonic()}
    if way == "inference":
        # As many forwards as a step has: what training adds is the rest.
        work.value()
        work.value()
    else:
        from common import ours

        stamps["import"] = time.monotonic()
        session = ours.open_session(model)
        stamps["open"] = time.monotonic()
        ours.step(work, session)()
        session.close()
    stamps["step"] = time.monotonic()
    print(json.dumps(stamps))


if __name__ == "__main__":
    main(sys.argv[1:])
