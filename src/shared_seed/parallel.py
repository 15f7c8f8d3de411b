"""Share work between threads whose kernels release the GIL."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from itertools import islice
from threading import Lock
from typing import TypeVar

Item = TypeVar("Item")


@cache
def _pool(threads: int, process: int) -> ThreadPoolExecutor:
    """Threads of this process: those of one that it was forked from are not there."""
    return ThreadPoolExecutor(threads, thread_name_prefix="shared-seed")


class _Shared(Iterator[Item]):
    """An iterator that several threads may draw from."""

    def __init__(self, items: Iterable[Item]) -> None:
        self._items = iter(items)
        self._lock = Lock()

    def __next__(self) -> Item:
        with self._lock:
            return next(self._items)

    def drain(self) -> None:
        with self._lock:
            self._items = islice(self._items, 0)


def for_each(work: Callable[[Item], None], items: Sequence[Item], threads: int) -> None:
    """Call ``work`` on every item, from the calling thread and others, at most ``threads`` in all.

    The items must not depend on each other. After an exception no further item is begun; it is raised when those
    in work are done.
    """
    shared = _Shared(items)

    def some() -> None:
        try:
            for item in shared:
                work(item)
        except BaseException:
            shared.drain()
            raise

    helpers = [_pool(threads, os.getpid()).submit(some) for _ in range(min(threads, len(items)) - 1)]
    try:
        some()
    finally:
        errors = [helper.exception() for helper in helpers]
    for error in errors:
        if error is not None:
            raise error
