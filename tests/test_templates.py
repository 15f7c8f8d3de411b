"""Templates: nested columns, replacements, and what may be cut."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shared_seed.templates import Filled, cell, fields, fill, replaced, text

ROW: dict[str, Any] = {
    "answers": {"text": ["red", "blue"], "start": [1, 2]},
    "turns": [{"said": "a"}, {"said": "b"}],
    "empty": None,
}


@pytest.mark.parametrize(
    ("path", "value"),
    [("answers.text", ["red", "blue"]), ("turns.said", ["a", "b"]), ("empty", None), ("empty.more", None)],
)
def test_a_path_leads_into_nested_columns(path: str, value: Any) -> None:
    assert cell(ROW, path) == value


@pytest.mark.parametrize("path", ["missing", "answers.missing", "turns.missing"])
def test_a_path_that_leads_nowhere_is_an_error(path: str) -> None:
    with pytest.raises(KeyError):
        cell(ROW, path)


@pytest.mark.parametrize(
    "template", ["{a.__class__}", "{__class__}", "{a.}", "{.a}", "{a[0]}", "{a.0}", "{a!r}", "{a:>9}"]
)
def test_only_names_of_columns_are_fields(template: str) -> None:
    with pytest.raises(ValueError, match="not a plain column name"):
        fields(template)


def test_fields_are_named_in_order_and_braces_can_be_written() -> None:
    assert fields("{{x}} {b.c} {a}") == ["b.c", "a"]
    assert fill("{{x}} {a}", lambda name: "{y}").text == "{x} {y}"


def test_cells_are_shown_as_people_write_them() -> None:
    assert [text(v) for v in (None, 3.0, 2.5, " x ", True, 7)] == ["", "3", "2.5", "x", "True", "7"]


def test_parts_are_replaced_in_one_pass_the_longest_first() -> None:
    wanted = {"a": "b", "b": "a", "ab": "{candidate}!"}
    assert replaced("a b ab", wanted, lambda name: "{candidate} a") == "b a {candidate} a!"
    assert replaced("a.b", {".": "\\1"}, lambda name: "") == "a\\1b"


@given(before=st.text(max_size=9), long=st.text(max_size=40), after=st.text(max_size=9), kept=st.integers(0, 50))
def test_a_shortened_text_keeps_all_around_the_cut_and_only_a_beginning_within(
    before: str, long: str, after: str, kept: int
) -> None:
    filled = fill("{a}{long}{b}", lambda name: {"a": before, "long": long, "b": after}[name], "long")
    assert filled == Filled(before + long + after, (len(before), len(before) + len(long)))
    short = filled.shortened(kept)
    assert short.startswith(before)
    assert short.endswith(after)
    within = short[len(before) : len(short) - len(after)]
    assert len(within) <= kept
    assert long.startswith(within)
    if kept >= len(long) and long == long.rstrip():
        assert short == filled.text


def test_a_text_is_cut_between_words_where_it_can_be() -> None:
    filled = fill("{long}?", lambda name: "one two three", "long")
    assert [filled.shortened(n) for n in (13, 12, 7, 5, 2, 0)] == [
        "one two three?",
        "one two?",
        "one two?",
        "one?",
        "on?",
        "?",
    ]
