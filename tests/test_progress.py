"""What people see of a run while it goes: whole addresses to copy, and others' words as letters alone."""

from __future__ import annotations

import io
import re
import sys

import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.table import Table

from shared_seed import terminal as console
from shared_seed import visible
from shared_seed.progress import Display
from shared_seed.swarm import wire

COMMAND = f"shared-seed join tcp://{'5e' * 32}@some.host.example:5555"


class Terminal(io.StringIO):
    """Standard error as a terminal has it."""

    def isatty(self) -> bool:
        return True


@pytest.fixture(params=[io.StringIO, Terminal])
def shown(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> io.StringIO:
    """To be put in place of standard error by the test itself: a file, or a terminal of 200 columns."""
    monkeypatch.setenv("COLUMNS", "200")
    monkeypatch.setenv("TERM", "xterm")
    stream: io.StringIO = request.param()
    return stream


def test_the_command_to_join_with_stands_on_one_line(shown: io.StringIO, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "60")
    monkeypatch.setattr(sys, "stderr", shown)
    with Display("a title") as display:
        display.show("peer 1", {"event": "status", "text": "waiting for peers", "command": COMMAND})
    assert f"peer 1: waiting for peers; join with: {COMMAND}\n" in shown.getvalue()


def test_words_of_others_are_shown_as_letters(shown: io.StringIO, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stderr", shown)
    with Display("a [red]title[/nothing]") as display:
        display.show("[/peer]", {"event": "status", "text": "loading [data]"})
        display.show("[/peer]", {"event": "fault", "text": "[/] of [b]"})
    for words in ("a [red]title[/nothing]", "[/peer]", "loading [data]", "[/] of [b]"):
        assert words in shown.getvalue()


OBEYED = "\x1b]0;gone\x07\x9b31m\r\u202e"
"""A new title, red, a line begun again, and letters turned round."""


def test_what_a_terminal_would_obey_is_not_printed(shown: io.StringIO, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stderr", shown)
    with Display(f"a {OBEYED}title") as display:
        display.show(f"peer{OBEYED}", {"event": "status", "text": f"loading{OBEYED} data"})
        display.show(f"peer{OBEYED}", {"event": "fault", "text": f"fault{OBEYED} of somebody"})
    said = shown.getvalue()
    for words in ("a ]0;gone31mtitle", "peer]0;gone31m", "loading]0;gone31m data", "fault]0;gone31m of somebody"):
        assert words in said
    assert not set("\x07\x9b\u202e") & set(said)
    assert "\x1b]0;" not in said
    assert isinstance(shown, Terminal) or not set("\x1b\r") & set(said)


def test_a_table_of_a_terminal_stays_in_shape(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stdout", shown := io.StringIO())
    table = Table("name", "figure")
    for name in (OBEYED, "]0;gone31m"):
        table.add_row(name, "1")
    console.Terminal().print(table, "a :b: in [b]\tand more\n")
    _, head, _, first, second, _, last, *_ = shown.getvalue().splitlines()
    assert first == second
    assert len(head) == len(first)
    assert last.split("\t")[0].split() == ["a", ":b:", "in", "[b]", "and", "more"]


@given(st.text(alphabet=st.characters(exclude_categories=["Cs"])))
def test_cleaned_text_is_what_peers_may_say_of_each_other(text: str) -> None:
    said = visible.cleaned(text)
    assert re.search(wire.VISIBLE, said.replace("\n", "").replace("\t", ""))
    assert said == text or not re.search(wire.VISIBLE, text)
