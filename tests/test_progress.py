"""What people see of a run while it goes: whole addresses to copy, and others' words as letters alone."""

from __future__ import annotations

import io
import sys

import pytest

from shared_seed.progress import Display

COMMAND = f"shared-seed join tcp://{'5e' * 32}@some.host.example:5555"


class Terminal(io.StringIO):
    """Standard error as a terminal has it."""

    def isatty(self) -> bool:
        return True


@pytest.mark.parametrize("kind", [io.StringIO, Terminal])
def test_the_command_to_join_with_stands_on_one_line(
    kind: type[io.StringIO], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "60")
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setattr(sys, "stderr", shown := kind())
    with Display("a title") as display:
        display.show("peer 1", {"event": "status", "text": "waiting for peers", "command": COMMAND})
    assert f"peer 1: waiting for peers; join with: {COMMAND}\n" in shown.getvalue()


@pytest.mark.parametrize("kind", [io.StringIO, Terminal])
def test_words_of_others_are_shown_as_letters(kind: type[io.StringIO], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "200")
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setattr(sys, "stderr", shown := kind())
    with Display("a [red]title[/nothing]") as display:
        display.show("[/peer]", {"event": "status", "text": "loading [data]"})
        display.show("[/peer]", {"event": "fault", "text": "[/] of [b]"})
    for words in ("a [red]title[/nothing]", "[/peer]", "loading [data]", "[/] of [b]"):
        assert words in shown.getvalue()
