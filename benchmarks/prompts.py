"""How well does a model do before any training, by prompt? Scored on training rows, so the test stays unseen.

python benchmarks/prompts.py recipes/quickstart.yaml
"""

from __future__ import annotations

import argparse
from pathlib import Path

from shared_seed import data, recipe
from shared_seed.classification import Classification
from shared_seed.errors import RecipeError
from shared_seed.integrations.transformers.models import load
from shared_seed.precision import resolve
from shared_seed.score import Score
from shared_seed.task import ClassificationTask

CANDIDATES = (
    ("{text} It was", "terrible", "great"),
    ("{text}\nAll in all, the movie was", "bad", "good"),
    ("Review: {text}\nSentiment:", "negative", "positive"),
    ("Review: {text}\nSentiment (positive or negative):", "negative", "positive"),
    ("Movie review: {text}\nThe reviewer's opinion is", "negative", "positive"),
    ("{text}\nQuestion: Is this review positive or negative?\nAnswer:", "negative", "positive"),
    ("{text}\nDid the critic like the film? Answer yes or no.\nAnswer:", "no", "yes"),
)
"""Prompt, word for the first label, word for the second."""


def measure(path: Path, rows: int, candidates: tuple[tuple[str, str, str], ...] = CANDIDATES) -> list[Score]:
    """Print and return the score of each candidate on the first ``rows`` training rows."""
    terms = recipe.load(path)
    if not isinstance(terms.task, ClassificationTask):
        raise RecipeError(f"{path} is no classification by label words; expected one")
    table = data.load(terms.dataset)
    model, tokenizer = load(terms.model, weights=terms.weights)
    scores = []
    for prompt, *words in candidates:
        labelled = dict(zip(terms.task.words, words, strict=True))
        task = terms.task.model_copy(update={"prompt": prompt, "words": labelled, "most_tokens": 100})
        classification = Classification(task, tokenizer, model)
        train = data.split(table, task, terms.training.seed).train[:rows]
        score = classification.evaluate(model, classification.encode(train), resolve(terms, "cpu").bf16)
        print(
            f"accuracy {score.accuracy or 0:.3f}  AUC {score.auc or 0:.3f}  "
            f"at the median {score.median_accuracy or 0:.3f}  "
            f"loss {score.loss:.3f}  {prompt!r} {'/'.join(words)}",
            flush=True,
        )
        scores.append(score)
    return scores


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("recipe", type=Path)
    parser.add_argument("--rows", type=int, default=400)
    options = parser.parse_args()
    measure(options.recipe, options.rows)
