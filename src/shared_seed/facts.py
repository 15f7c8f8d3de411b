"""What is known of a base model before it is downloaded."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from shared_seed.errors import RecipeError

FACTS = "facts"
"""The key that holds them in a recipe's file; no part of the recipe, so that no run depends on them."""

STORED = {"fp32": 4, "fp16": 2, "bf16": 2}
"""Bytes a parameter in a model's files, by their dtype."""

MEMORY = {"fp32": 4, "bf16": 2, "4bit": 2}
"""Bytes of a parameter that is not trained; with 4bit, of one that is not quantised."""

QUANTISED = 0.5 + 4 / 64
"""Bytes of a quantised parameter: 4 bits, and a float32 for each 64 (QLoRA, arXiv 2305.14314, section 2)."""

TRAINED = {"fp32": 6, "bf16": 4}
"""Bytes of a parameter that is trained: with its cast for products in bf16, or with its low bits."""


class Facts(BaseModel):
    """The section ``facts`` of ``recipes/models/NAME.yaml``."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    gated: bool = Field(description="whether the Hub asks for an account that has accepted the licence")
    stored: Literal["fp32", "fp16", "bf16"] = Field(description="dtype of the files on the Hub")
    parameters: int = Field(gt=0, description="tied ones counted once; what `config` comes to")
    config: dict[str, Any] = Field(
        description="of the Hub's config.json, what makes class, shapes and outputs, `model_type` first"
    )

    @classmethod
    def of(cls, content: object, source: str) -> Facts:
        """Parse the section.

        Raises:
            RecipeError: it is not one; begins with ``source``.
        """
        try:
            return cls.model_validate(content)
        except ValidationError as error:
            wrong = "; ".join(f"{FACTS}.{'.'.join(map(str, e['loc']))}: {e['msg']}" for e in error.errors())
            raise RecipeError(f"{source}: {wrong}; valid keys are {', '.join(cls.model_fields)}") from None

    def weights(self, kept: str, adapter: bool) -> int:
        """Bytes of the weights in memory, near enough without the model; an adapter's own are not counted.

        Args:
            kept: the recipe's ``weights``.
            adapter: whether an adapter is trained, or everything.
        """
        if kept != "4bit":
            return self.parameters * (MEMORY[kept] if adapter else TRAINED[kept])
        shape = self.config
        embeddings = 1 if shape.get("tie_word_embeddings", True) else 2
        apart = embeddings * shape["vocab_size"] * shape.get("word_embed_proj_dim", shape["hidden_size"])
        return int(apart * MEMORY[kept] + (self.parameters - apart) * QUANTISED)

    @property
    def download(self) -> int:
        """Bytes of the weights' files, but for their headers."""
        return self.parameters * STORED[self.stored]
