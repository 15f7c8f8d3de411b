"""The code for each kind of task that a recipe can name."""

from __future__ import annotations

from typing import Any

from torch import nn

from shared_seed.chat import Chat
from shared_seed.choice import MultipleChoice
from shared_seed.classification import Classification
from shared_seed.generation import Generation
from shared_seed.task import ChoiceTask, ClassificationTask, GenerationTask, Task
from shared_seed.text_task import TextTask


def build(task: Task, tokenizer: Any, model: nn.Module) -> TextTask:
    """A recipe's task with a tokenizer, for a model.

    Raises:
        RecipeError: its label words are not what the tokenizer can tell apart.
    """
    if isinstance(task, ClassificationTask):
        return Classification(task, tokenizer, model)
    if isinstance(task, ChoiceTask):
        return MultipleChoice(task, tokenizer, model)
    if isinstance(task, GenerationTask):
        return Generation(task, tokenizer, model)
    return Chat(task, tokenizer, model)
