"""Multiple choice: the candidate whose tokens are the likeliest behind the prompt."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import Any

from torch import nn

from shared_seed.continuations import Continuations, mean_loss
from shared_seed.examples import Choice, Dropped
from shared_seed.score import Score
from shared_seed.task import ChoiceTask
from shared_seed.text_task import TOO_LONG, Feature, Progress


class MultipleChoice(Continuations):
    """One task with one tokenizer, for one kind of model.

    Trained on the right candidate's tokens, as MeZO trains COPA and ReCoRD (Malladi et al. 2023, appendix E.2).
    """

    def __init__(self, task: ChoiceTask, tokenizer: Any, model: nn.Module) -> None:
        super().__init__(tokenizer, model, task.most_tokens)
        self.task = task

    def encode(self, examples: Sequence[Choice], dropped: Dropped | None = None) -> list[Feature]:
        """As ``prompt`` and ``candidates`` in tokens, ``right`` indices, and the first right one to train on.

        The prompt is shortened for the longest candidate, so that all are scored behind the same one.
        """
        dropped = Counter() if dropped is None else dropped
        candidates = [[self.continuation(text) for text in example.candidates] for example in examples]
        prompts = self.prompts([e.prompt for e in examples], [max(map(len, texts)) for texts in candidates])
        features: list[Feature] = []
        for example, prompt, texts in zip(examples, prompts, candidates, strict=True):
            if not prompt or not all(texts):
                dropped[TOO_LONG if all(texts) else "with a candidate that has no token"] += 1
                continue
            right = texts[example.right[0]]
            choice = {"prompt": prompt, "candidates": texts, "right": example.right}
            features.append({"input_ids": prompt + right, "targets": right, **choice})
        return features

    def evaluate(
        self,
        model: nn.Module,
        features: Sequence[Feature],
        bf16: bool,
        progress: Progress = lambda done: None,
        rows: int = 32,
    ) -> Score:
        """Score a model: accuracy of the likeliest candidate, and the loss that is trained on."""
        each = [(i, text) for i, feature in enumerate(features) for text in feature["candidates"]]
        scored = [{"input_ids": features[i]["prompt"] + text, "targets": text} for i, text in each]

        def tell(done: int) -> None:
            progress(done * len(features) // len(scored))

        sums = iter(self.token_sums(model, scored, bf16, tell, rows))
        correct = 0
        trained: list[tuple[float, int]] = []
        for feature in features:
            own = [next(sums) for _ in feature["candidates"]]
            losses = [total / count if self.task.scored == "mean" else total for total, count in own]
            correct += losses.index(min(losses)) in feature["right"]
            trained.append(own[feature["right"][0]])
        return Score(correct / len(features), mean_loss(trained), len(features))
