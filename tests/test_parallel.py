"""Work that threads share: all of it is done once, and errors come out."""

from __future__ import annotations

import subprocess
import sys
import threading
import time

import pytest

from shared_seed.parallel import for_each


@pytest.mark.parametrize("threads", [1, 2, 5])
def test_every_item_is_done_once(threads: int) -> None:
    done: list[int] = []
    for_each(done.append, range(200), threads)
    assert sorted(done) == list(range(200))


def test_the_calling_thread_works_too_and_others_help() -> None:
    barrier, seen = threading.Barrier(3, timeout=60), set()

    def meet(item: int) -> None:
        seen.add(threading.current_thread().name)
        barrier.wait()

    for_each(meet, range(3), 3)
    assert len(seen) == 3
    assert threading.current_thread().name in seen


@pytest.mark.parametrize("threads", [1, 3])
def test_an_error_stops_the_rest_and_is_raised(threads: int) -> None:
    done: list[int] = []

    def work(item: int) -> None:
        if item == 5:
            raise ValueError("five")
        time.sleep(0.001)
        done.append(item)

    with pytest.raises(ValueError, match="five"):
        for_each(work, range(1000), threads)
    assert len(done) < 100
    for_each(done.append, [7], threads)
    assert done[-1] == 7


def test_a_forked_process_has_threads_of_its_own() -> None:
    script = """
import os
from shared_seed.parallel import for_each
for_each(len, [""] * 9, 3)
child = os.fork()
done = []
for_each(done.append, range(9), 3)
if child:
    _, status = os.waitpid(child, 0)
    assert status == 0
os._exit(0 if sorted(done) == list(range(9)) else 1)
"""
    assert subprocess.run([sys.executable, "-W", "ignore", "-c", script], timeout=60).returncode == 0
