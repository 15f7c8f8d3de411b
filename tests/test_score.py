"""Figures of answers and labels, against slow and obvious ways to find them."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shared_seed.score import Score, exact_match, label_f1, macro_f1, normalised, overlap

WORDS = st.lists(st.sampled_from(["a", "An", "the", "cat", "Cat", "sat,", "3", "mat.", "theatre"]), max_size=6)
ANSWERS = st.lists(WORDS.map(" ".join), min_size=1, max_size=3)


@pytest.mark.parametrize(
    ("answer", "plain"),
    [
        ("The Eiffel Tower", "eiffel tower"),
        ("  an  apple, a day.", "apple day"),
        ("theatre", "theatre"),
        ("don't", "dont"),
        ("1,000", "1000"),
        ("A", ""),
        ("a-the-b", "atheb"),
        ("Füße “a”", "füße “ ”"),
        ("", ""),
    ],
)
def test_answers_are_compared_as_squad_compares_them(answer: str, plain: str) -> None:
    assert normalised(answer) == plain


@given(answer=st.text(max_size=30))
def test_normalising_again_changes_nothing_and_case_and_spaces_do_not_count(answer: str) -> None:
    plain = normalised(answer)
    assert "  " not in plain
    assert plain == plain.strip()
    assert not {"a", "an", "the"} & set(plain.split()) or not answer.isascii()
    assert normalised(f"  {answer}\n") == plain


@given(given_=WORDS.map(" ".join), right=ANSWERS)
def test_overlap_is_the_f1_of_words_counted_one_by_one(given_: str, right: list[str]) -> None:
    best = 0.0
    for answer in right:
        left, common = normalised(answer).split(), 0
        own = normalised(given_).split()
        if not left and not own:
            best = 1.0
            continue
        size = len(left)
        for word in own:
            if word in left:
                left.remove(word)
                common += 1
        if common:
            precision, recall = common / len(own), common / size
            best = max(best, 2 * precision * recall / (precision + recall))
    assert overlap(given_, right) == pytest.approx(best)
    assert 0 <= overlap(given_, right) <= 1
    assert exact_match(given_, right) <= overlap(given_, right)
    assert exact_match(right[0], right) == overlap(right[0], right) == 1


@given(rows=st.lists(st.tuples(st.integers(0, 3), st.integers(0, 3)), min_size=1, max_size=30))
def test_the_f1_of_labels_agrees_with_precision_and_recall(rows: list[tuple[int, int]]) -> None:
    chosen, right = [c for c, _ in rows], [r for _, r in rows]
    found = []
    for label in sorted({*chosen, *right}):
        hits = sum(c == r == label for c, r in rows)
        precision = hits / max(1, chosen.count(label))
        recall = hits / max(1, right.count(label))
        found.append(2 * precision * recall / (precision + recall) if hits else 0.0)
        assert label_f1(chosen, right, label) == pytest.approx(found[-1])
    assert macro_f1(chosen, right) == pytest.approx(sum(found) / len(found))
    assert label_f1(chosen, right, 7) == 0


def test_a_score_shows_what_the_task_has_and_no_more() -> None:
    assert str(Score(0.5, 0.25, 4)) == "accuracy 50.0%, loss 0.2500"
    assert str(Score(None, 1.5, 4, exact_match=0.25, f1=0.5)) == "exact match 25.0%, F1 50.0%, loss 1.5000"
    assert Score(0.5, 0.25, 4, f1=0.1).main == ("accuracy", 0.5)
    assert Score(None, 0.25, 4, f1=0.1).main == ("f1", 0.1)
    assert Score(None, 0.25, 4).main == ("loss", 0.25)
