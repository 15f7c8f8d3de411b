"""The status page, without a relay: what it shows, and what those who ask too much of it get."""

from __future__ import annotations

import json
import socket
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import ExitStack
from typing import Any

import pytest

from shared_seed import clock, status
from shared_seed.errors import RecipeError
from shared_seed.status import MOST_ASKING, StatusPage, page, parse_status

HOSTILE = "<script>alert(1)</script>\"'&"


def figures() -> dict[str, Any]:
    names = ("relay", "address", "run", "model", "owner", "trouble")
    numbers = ("round", "seconds", "messages", "stream_count", "live_peers", "log_bytes")
    counts = ("received_bytes", "sent_bytes", "refused_frames", "limited_frames")
    rates = ("messages_per_second", "received_per_second", "sent_per_second")
    peer = {"name": HOSTILE, "key": HOSTILE, "state": HOSTILE, "round": 1, "messages": 2, "level": True}
    return {
        **dict.fromkeys(names, HOSTILE),
        **dict.fromkeys((*numbers, *counts, *rates), 7),
        "peers": [{**peer, "silent_seconds": 1.0, "live": True}],
        "streams": [{"stream": HOSTILE, "messages": 3, "counts": True, "cut": False}],
        "faults": [HOSTILE],
    }


@pytest.fixture
def asked() -> list[float]:
    return []


@pytest.fixture
def shown(asked: list[float]) -> Iterator[StatusPage]:
    def look() -> dict[str, Any]:
        asked.append(clock.now())
        return figures()

    served = StatusPage(look, "127.0.0.1", 0)
    yield served
    served.close()


def get(shown: StatusPage, path: str = "") -> str:
    with urllib.request.urlopen(shown.address + path, timeout=10) as answer:
        text: str = answer.read().decode()
    return text


def test_what_strangers_call_themselves_is_no_markup() -> None:
    text = page(figures())
    assert "<script" not in text
    assert text.count("&lt;script&gt;alert(1)&lt;/script&gt;&quot;&#x27;&amp;") >= 10


def test_figures_are_made_once_a_second_however_often_they_are_asked_for(
    shown: StatusPage, asked: list[float], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(status, "KEPT", 60.0)
    for _ in range(5):
        assert json.loads(get(shown, "status.json"))["limited_frames"] == 7
        assert "shared_seed_limited_frames_total 7.0" in get(shown, "metrics")
        assert "7 beyond the rate" in get(shown)
    assert len(asked) == 1
    monkeypatch.setattr(status, "KEPT", 0.0)
    get(shown)
    assert len(asked) == 2


def test_other_pages_are_not_there(shown: StatusPage) -> None:
    for path in ("../../etc/passwd", "status.json/..", "%2e%2e/key"):
        with pytest.raises(urllib.error.HTTPError, match="no such page"):
            get(shown, path)


def test_connections_that_say_nothing_take_a_bounded_number_of_threads(shown: StatusPage) -> None:
    port = int(shown.address.rpartition(":")[2].strip("/"))
    with ExitStack() as open_:
        for _ in range(MOST_ASKING):
            open_.enter_context(socket.create_connection(("127.0.0.1", port), 5))
        beyond = open_.enter_context(socket.create_connection(("127.0.0.1", port), 5))
        assert beyond.recv(1) == b"", "it is closed at once"
    deadline = clock.now() + 20
    while True:
        try:
            assert "7 peers" in get(shown)
            return
        except OSError:
            assert clock.now() < deadline, "there is place again once they are gone"


@pytest.mark.parametrize("text", ["", "x", "1.2.3.4:", "1:99999", "localhost"])
def test_what_is_no_port_is_refused(text: str) -> None:
    with pytest.raises(RecipeError, match="is not PORT or HOST:PORT"):
        parse_status(text)
