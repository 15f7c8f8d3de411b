"""Ctrl-C waits for a block to end and is then delivered, once, to whoever was listening."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator

import pytest

from shared_seed.interrupts import deferred


def interrupt() -> None:
    os.kill(os.getpid(), signal.SIGINT)


@pytest.fixture
def received() -> Iterator[list[int]]:
    """Signals that a handler of the test's own has seen."""
    seen: list[int] = []
    before = signal.signal(signal.SIGINT, lambda number, frame: seen.append(number))
    yield seen
    signal.signal(signal.SIGINT, before)


@pytest.mark.parametrize("times", [1, 3])
def test_an_interrupt_is_held_back_and_delivered_once(received: list[int], times: int) -> None:
    handler = signal.getsignal(signal.SIGINT)
    with deferred():
        for _ in range(times):
            interrupt()
        assert received == []
    assert received == [signal.SIGINT]
    assert signal.getsignal(signal.SIGINT) is handler


def test_without_an_interrupt_nothing_is_delivered(received: list[int]) -> None:
    handler = signal.getsignal(signal.SIGINT)
    with deferred():
        pass
    assert received == []
    assert signal.getsignal(signal.SIGINT) is handler


def test_the_block_is_whole_before_keyboard_interrupt() -> None:
    done = []
    with pytest.raises(KeyboardInterrupt):  # noqa: PT012
        with deferred():
            interrupt()
            done.append(1)
        done.append(2)
    assert done == [1]
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


def test_nested_blocks_deliver_once_after_the_outermost(received: list[int]) -> None:
    with deferred():
        with deferred():
            interrupt()
        assert received == []
        interrupt()
        assert received == []
    assert received == [signal.SIGINT]


def test_an_error_in_the_block_passes_and_the_handler_is_restored(received: list[int]) -> None:
    handler = signal.getsignal(signal.SIGINT)
    with pytest.raises(ZeroDivisionError), deferred():  # noqa: PT012
        interrupt()
        raise ZeroDivisionError
    assert received == [signal.SIGINT]
    assert signal.getsignal(signal.SIGINT) is handler


def test_off_the_main_thread_it_leaves_the_handler_alone(received: list[int]) -> None:
    handler = signal.getsignal(signal.SIGINT)
    seen: list[object] = []

    def work() -> None:
        with deferred():
            seen.append(signal.getsignal(signal.SIGINT))

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert seen == [handler]


@pytest.mark.parametrize(
    ("handler", "status"), [("signal.SIG_IGN", 0), ("signal.SIG_DFL", -signal.SIGINT)], ids=["ignored", "default"]
)
def test_handlers_of_the_system_are_honoured_after_the_block(handler: str, status: int) -> None:
    program = f"""if True:
        import os, signal
        from shared_seed.interrupts import deferred
        signal.signal(signal.SIGINT, {handler})
        with deferred():
            os.kill(os.getpid(), signal.SIGINT)
            print("whole", flush=True)
        print("after", signal.getsignal(signal.SIGINT) is {handler}, flush=True)
    """
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=60, check=False)
    assert done.stdout.splitlines() == (["whole", "after True"] if status == 0 else ["whole"])
    assert done.returncode == status, done.stderr
