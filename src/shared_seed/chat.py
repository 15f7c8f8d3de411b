"""Instruction tuning: conversations in the tokenizer's own template, trained on what the assistant says."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import Any

from torch import nn

from shared_seed.continuations import Continuations, mean_loss
from shared_seed.examples import Conversation, Dropped
from shared_seed.score import Score
from shared_seed.task import ChatTask
from shared_seed.text_task import IGNORED, TOO_LONG, Feature, Progress

Messages = Sequence[tuple[str, str]]

PLAIN_TEMPLATE = (
    "{% for message in messages %}{{ message.role | capitalize }}: {{ message.content }}"
    "{% if message.role == 'assistant' %}{{ eos_token }}{% endif %}{{ '\\n' }}{% endfor %}"
    "{% if add_generation_prompt %}Assistant:{% endif %}"
)
"""For tokenizers that have no chat template, since their models have learnt no markers of turns."""

REFUSED = "that the chat template refuses"
REWRITTEN = "whose answers the chat template rewrites"


class _RefusedError(Exception):
    """The template has no text for such messages. Never leaves this module."""


class Chat(Continuations):
    """One task with one tokenizer, for one kind of model."""

    def __init__(self, task: ChatTask, tokenizer: Any, model: nn.Module) -> None:
        super().__init__(tokenizer, model, task.most_tokens)
        self.task = task
        self._template = None if tokenizer.chat_template else PLAIN_TEMPLATE

    def encode(self, examples: Sequence[Conversation], dropped: Dropped | None = None) -> list[Feature]:
        """Conversations in tokens, without their first exchanges where they are too long.

        An exchange begins with a user's message; what the system says first is kept.
        """
        dropped = Counter() if dropped is None else dropped
        features: list[Feature] = []
        for example in examples:
            reason = TOO_LONG
            for messages in shorter_and_shorter(example.messages):
                try:
                    feature = self._feature(messages)
                except _RefusedError:
                    reason = REFUSED
                    continue
                reason = TOO_LONG if feature else REWRITTEN
                if feature and len(feature["input_ids"]) <= self.most_tokens:
                    features.append(feature)
                    break
            else:
                dropped[reason] += 1
        return features

    def _feature(self, messages: Messages) -> Feature | None:
        """A conversation in tokens; None where no answer of the assistant's stands in the text as it was said."""
        whole = self._render(messages)
        ids: list[int] = []
        targets: list[int] = []
        read = 0
        for i, (role, _) in enumerate(messages):
            before, after = self._render(messages[:i], True), self._render(messages[: i + 1])
            said = whole.startswith(after) and after.startswith(before) and len(before) >= read
            if role != "assistant" or not said:
                continue
            between, answer = self.tokens(whole[read : len(before)]), self.tokens(whole[len(before) : len(after)])
            ids += between + answer
            targets += ([IGNORED] * len(between) if targets else []) + answer
            read = len(after)
        if not targets:
            return None
        begun = ids[: len(self.beginning)] == self.beginning
        return {"input_ids": ids if begun else self.beginning + ids, "targets": targets}

    def _render(self, messages: Messages, answer_next: bool = False) -> str:
        if not messages:
            return ""
        try:
            text: str = self.tokenizer.apply_chat_template(
                [{"role": role, "content": content} for role, content in messages],
                chat_template=self._template,
                tokenize=False,
                add_generation_prompt=answer_next,
            )
        except Exception:  # templates raise what they like, for a role or an order that they do not know
            raise _RefusedError from None
        return text

    def evaluate(
        self,
        model: nn.Module,
        features: Sequence[Feature],
        bf16: bool,
        progress: Progress = lambda done: None,
        rows: int = 32,
    ) -> Score:
        """Score a model: the loss that is trained on, a mean over all tokens that assistants say."""
        return Score(None, mean_loss(self.token_sums(model, features, bf16, progress, rows)), len(features))


def shorter_and_shorter(messages: Messages) -> list[Messages]:
    """A conversation, then without its first exchange, its first two, and so on; the system's words stay."""
    system = [m for m in messages[:1] if m[0] == "system"]
    rest = messages[len(system) :]
    starts = [i for i, (role, _) in enumerate(rest) if role == "user" or i == 0]
    answers = [i for i, (role, _) in enumerate(rest) if role == "assistant"]
    return [[*system, *rest[start:]] for start in starts if start < answers[-1]]
