"""Small models, and slow obvious ways to do what the package does fast."""

from __future__ import annotations

import copy
import random
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from shared_seed import directions
from shared_seed.manifest import Limits, Manifest
from shared_seed.messages import Message, Stream, as_float32
from shared_seed.noise import Sample
from shared_seed.replica import Replica
from shared_seed.weights import Choice, Weights, as_bytes

EPSILON = 2.0**-8
VOCABULARY = 48
SAMPLE = Sample(0x0123456789ABCDEF, 7, 1)


class Mixed(nn.Module):
    """An embedding tied to the head, a Linear, a convolution, norms with buffers, dropout, a vector of its own."""

    def __init__(self) -> None:
        super().__init__()
        self.embed = nn.Embedding(VOCABULARY, 12)
        self.conv = nn.Conv1d(12, 12, 3, padding=1)
        self.norm = nn.BatchNorm1d(12)
        self.drop = nn.Dropout(0.2)
        self.linear = nn.Linear(12, 12)
        self.after = nn.LayerNorm(12)
        self.scale = nn.Parameter(torch.linspace(0.5, 1.5, 12))
        self.head = nn.Linear(12, VOCABULARY, bias=False)
        self.head.weight = self.embed.weight

    def forward(self, ids: Tensor) -> Tensor:
        hidden = self.norm(self.conv(self.embed(ids).transpose(1, 2))).transpose(1, 2)
        hidden = self.drop(torch.tanh(self.linear(hidden)))
        return self.head(self.after(hidden) * self.scale)


def mlp(inputs: int = 6, hidden: int = 8, outputs: int = 3) -> nn.Sequential:
    return nn.Sequential(nn.Linear(inputs, hidden), nn.Tanh(), nn.LayerNorm(hidden), nn.Linear(hidden, outputs))


def llama(**changes: Any) -> Any:
    from transformers import LlamaConfig, LlamaForCausalLM

    sizes = {
        "vocab_size": VOCABULARY,
        "hidden_size": 16,
        "intermediate_size": 32,
        "num_hidden_layers": 2,
        "num_attention_heads": 2,
        "num_key_value_heads": 1,
        "max_position_embeddings": 32,
        "tie_word_embeddings": True,
        "pad_token_id": 0,
        "bos_token_id": 1,
        "eos_token_id": 2,
    }
    return LlamaForCausalLM(LlamaConfig(**(sizes | changes)))


def opt(**changes: Any) -> Any:
    from transformers import OPTConfig, OPTForCausalLM

    sizes = {
        "vocab_size": VOCABULARY,
        "hidden_size": 16,
        "word_embed_proj_dim": 16,
        "ffn_dim": 32,
        "num_hidden_layers": 2,
        "num_attention_heads": 2,
        "max_position_embeddings": 32,
        "dropout": 0.1,
        "pad_token_id": 1,
        "bos_token_id": 2,
        "eos_token_id": 2,
    }
    return OPTForCausalLM(OPTConfig(**(sizes | changes)))


def gpt2(**changes: Any) -> Any:
    from transformers import GPT2Config, GPT2LMHeadModel

    sizes = {
        "vocab_size": VOCABULARY,
        "n_embd": 16,
        "n_layer": 2,
        "n_head": 2,
        "n_positions": 32,
        "bos_token_id": 1,
        "eos_token_id": 2,
    }
    return GPT2LMHeadModel(GPT2Config(**(sizes | changes)))


def lora(model: Any, targets: tuple[str, ...] = ("q_proj", "v_proj")) -> Any:
    """The model in an adapter of rank 2 whose B is not zero, so that A's directions do something."""
    import peft

    transposed = "c_attn" in targets
    config = peft.LoraConfig(r=2, lora_alpha=4, target_modules=list(targets), fan_in_fan_out=transposed)
    wrapped = peft.get_peft_model(model, config)
    generator = torch.Generator().manual_seed(3)
    for name, parameter in wrapped.named_parameters():
        if "lora_B" in name:
            parameter.data.copy_(torch.randn(parameter.shape, generator=generator) * 0.1)
    return wrapped


def tokens(rows: int = 4, length: int = 9, seed: int = 5) -> Tensor:
    return torch.randint(3, VOCABULARY, (rows, length), generator=torch.Generator().manual_seed(seed))


def next_token_loss(model: nn.Module, ids: Tensor) -> Callable[[], Tensor]:
    """The language modelling loss of any of these models, as a function without arguments."""

    def loss() -> Tensor:
        out = model(ids)
        logits = out if isinstance(out, Tensor) else out.logits
        return nn.functional.cross_entropy(logits[:, :-1].flatten(0, 1), ids[:, 1:].flatten())

    return loss


def moved_copy(model: nn.Module, weights: Weights, sample: Sample, amount: float) -> nn.Module:
    """A deep copy with ``amount * direction`` added to the weights themselves."""
    moved = copy.deepcopy(model)
    named = dict(moved.named_parameters())
    for t in weights:
        direction = directions.direction(t.family, sample, t.index, tuple(t.parameter.shape))
        named[t.name].data += amount * torch.from_numpy(direction).view(t.parameter.shape)
    return moved


def bits(model: nn.Module) -> dict[str, bytes]:
    """Every parameter and buffer, as bytes."""
    tensors = [*model.named_parameters(), *model.named_buffers()]
    return {name: bytes(as_bytes(values)) for name, values in tensors}


def generators() -> list[Any]:
    """The state of every generator, in a form that can be compared."""
    numpy_state = np.random.get_state()
    return [
        torch.get_rng_state().tolist(),
        random.getstate(),
        [part.tolist() if isinstance(part, np.ndarray) else part for part in numpy_state],
    ]


def hooks(model: nn.Module) -> int:
    """How many hooks the modules of a model carry."""
    return sum(len(m._forward_hooks) + len(m._forward_pre_hooks) for m in model.modules())


def replica_of(model: nn.Module, scale_exponent: int = 0, dense: tuple[str, ...] = ()) -> Replica:
    """A replica of a run of its own, without a network."""
    weights = Weights.of(model, EPSILON, Choice(dense=tuple(dense)))
    manifest = Manifest(
        run="00112233445566778899aabbccddeeff",
        model="small",
        frozen_digest="00",
        tensors=weights.specs(),
        epsilon=EPSILON,
        scale_exponent=scale_exponent,
        rounds=1000,
        start_with=1,
        limits=Limits(learning_rate=1.0, samples_per_message=255),
    )
    return Replica(weights, manifest)


def stream(number: int) -> Stream:
    return Stream(bytes([number]) * 12, number)


def message(writer: int, number: int, learning_rate: float, codes: bytes) -> Message:
    return Message(stream(writer), number, number, as_float32(learning_rate), codes)


def tokenizer(words: str = "bad good fine film the it was plot dull bright") -> Any:
    """A real tokenizer, a token a word, with padding and an unknown token."""
    from tokenizers import Tokenizer
    from tokenizers.models import WordLevel
    from tokenizers.pre_tokenizers import Whitespace
    from transformers import PreTrainedTokenizerFast

    vocabulary = {word: i for i, word in enumerate(["[PAD]", "[UNK]", "[END]", *words.split()])}
    plain = Tokenizer(WordLevel(vocabulary, unk_token="[UNK]"))
    plain.pre_tokenizer = Whitespace()
    return PreTrainedTokenizerFast(tokenizer_object=plain, pad_token="[PAD]", unk_token="[UNK]", eos_token="[END]")
