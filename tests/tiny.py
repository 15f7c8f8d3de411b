"""A tiny real language model with a real tokenizer, toy data that it can learn, and a recipe."""

from __future__ import annotations

import csv
import random
import subprocess
import sys
from pathlib import Path
from typing import Any

import torch
import yaml

from models import llama

GOOD, BAD = ("good", "fine", "lovely"), ("bad", "awful", "dull")
FILLER = ("the", "film", "is", "it", "was", "so", "very", "a", "plot", "with")
WORDS = ("great", "terrible", *GOOD, *BAD, *FILLER)


def tokenizer() -> Any:
    from tokenizers import Tokenizer
    from tokenizers.models import WordLevel
    from tokenizers.pre_tokenizers import Whitespace
    from transformers import PreTrainedTokenizerFast

    vocabulary = {word: i for i, word in enumerate(("<pad>", "<unk>", *WORDS))}
    inner = Tokenizer(WordLevel(vocabulary, unk_token="<unk>"))
    inner.pre_tokenizer = Whitespace()
    return PreTrainedTokenizerFast(tokenizer_object=inner, pad_token="<pad>", unk_token="<unk>")


def save_model(folder: Path, seed: int = 0) -> Path:
    torch.manual_seed(seed)
    llama().save_pretrained(folder)
    tokenizer().save_pretrained(folder)
    return folder


def save_rows(path: Path, count: int, seed: int = 0) -> Path:
    draw = random.Random(seed)
    with path.open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["text", "label"])
        for _ in range(count):
            label = draw.randrange(2)
            words = [*draw.choices(FILLER, k=4), draw.choice((BAD, GOOD)[label])]
            draw.shuffle(words)
            writer.writerow([" ".join(words), label])
    return path


def recipe(folder: Path, **training: Any) -> Path:
    """Write model, data and recipe into a folder; returns the recipe's path."""
    save_model(folder / "model")
    save_rows(folder / "rows.csv", 120)
    content = {
        "title": "tiny",
        "model": str(folder / "model"),
        "dataset": str(folder / "rows.csv"),
        "task": {
            "prompt": "{text} it was",
            "words": {"0": "terrible", "1": "great"},
            "test_rows": 40,
        },
        "training": {
            "steps": 12,
            "batch_size": 8,
            "directions": 1,
            "learning_rate": 1e-2,
            "precision": "fp32",
        }
        | training,
        "quick": {"training": {"steps": 3}},
    }
    path = folder / "tiny.yaml"
    path.write_text(yaml.safe_dump(content))
    return path


def run(recipe: Path) -> Path:
    """A run of one peer, which has ended; returns its folder, beside the recipe."""
    from shared_seed import recipe as recipes
    from shared_seed.run import Part, settings_for, take_part

    terms, folder = recipes.load(recipe), recipe.parent / "run"
    take_part(terms, settings_for(terms, folder, number=0, name="peer 1"), Part(), True, lambda event: None)
    return folder


def finished(home: Path, folder: Path, peers: int = 2) -> Path:
    """The folder of a run of the recipe in a folder, by local peers, that has ended well."""
    words = [sys.executable, "-m", "shared_seed", "run", str(home / "tiny.yaml"), "--local", str(peers)]
    done = subprocess.run([*words, "-o", str(folder)], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return folder
