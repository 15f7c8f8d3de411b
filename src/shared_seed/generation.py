"""Answers of the model's own: trained on the right one's tokens, tested by greedy decoding."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from itertools import takewhile
from typing import Any

from torch import nn

from shared_seed.continuations import Continuations, mean_loss
from shared_seed.examples import Dropped, Question
from shared_seed.score import Score, exact_match, overlap
from shared_seed.task import GenerationTask
from shared_seed.text_task import TOO_LONG, Feature, Progress, at_rest, on_device_of


class Generation(Continuations):
    """One task with one tokenizer, for one kind of model."""

    def __init__(self, task: GenerationTask, tokenizer: Any, model: nn.Module) -> None:
        super().__init__(tokenizer, model, task.most_tokens)
        self.task = task
        ends = {tokenizer.eos_token_id, *self.continuation(task.stop)[-1:]} - {None}
        self._ends = sorted(int(token) for token in ends)

    def encode(self, examples: Sequence[Question], dropped: Dropped | None = None) -> list[Feature]:
        """Examples as ``prompt`` in tokens, the first answer to train on, and the texts of all ``answers``.

        Prompts leave room for ``most_new_tokens``, so that test and training read the same ones.
        """
        dropped = Counter() if dropped is None else dropped
        prompts = self.prompts([e.prompt for e in examples], [self.task.most_new_tokens] * len(examples))
        features: list[Feature] = []
        for example, prompt in zip(examples, prompts, strict=True):
            answer = self.continuation(f" {example.answers[0]}{self.task.stop}")
            if not prompt:
                dropped[TOO_LONG] += 1
            elif len(answer) > self.task.most_new_tokens:
                dropped["with an answer that is too long"] += 1
            else:
                question = {"prompt": prompt, "answers": example.answers}
                features.append({"input_ids": prompt + answer, "targets": answer, **question})
        return features

    def evaluate(
        self,
        model: nn.Module,
        features: Sequence[Feature],
        bf16: bool,
        progress: Progress = lambda done: None,
        rows: int = 32,
    ) -> Score:
        """Score a model: exact match and F1 of the words it gives, and the loss that is trained on."""

        def half(done: int) -> None:
            progress(done // 2)

        loss = mean_loss(self.token_sums(model, features, bf16, half, rows))
        ordered = sorted(features, key=lambda f: len(f["prompt"]))
        exact = f1 = 0.0
        for start in range(0, len(ordered), rows):
            some = ordered[start : start + rows]
            for given, feature in zip(self.answers(model, some, bf16), some, strict=True):
                exact += exact_match(given, feature["answers"])
                f1 += overlap(given, feature["answers"])
            progress((len(ordered) + min(len(ordered), start + rows)) // 2)
        return Score(None, loss, len(features), exact_match=exact / len(features), f1=f1 / len(features))

    def answers(self, model: nn.Module, features: Sequence[Feature], bf16: bool) -> list[str]:
        """What a model says behind prompts, each token the likeliest, up to the task's stop."""
        batch = on_device_of(model, self.padded([feature["prompt"] for feature in features], 1))
        inputs = {name: batch[name] for name in ("input_ids", "attention_mask")}
        generator: Any = model
        # None for what only sampling reads, or transformers warns of a model's own settings of it.
        no_sampling = {"do_sample": False, "temperature": None, "top_p": None, "top_k": None}
        with at_rest(model, bf16):
            ids = generator.generate(
                **inputs,
                **no_sampling,
                max_new_tokens=self.task.most_new_tokens,
                eos_token_id=self._ends,
                pad_token_id=self._padding,
            )
        new = ids[:, inputs["input_ids"].shape[1] :].tolist()
        kept = [list(takewhile(lambda token: token not in self._ends, row)) for row in new]
        texts: list[str] = self.tokenizer.batch_decode(kept, skip_special_tokens=True)
        return [text.split(self.task.stop)[0].strip() for text in texts]
