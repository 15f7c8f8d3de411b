"""Every model of the collection: its facts are right, and its architecture trains and replays at a tiny size."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
import yaml

import tiny
from shared_seed import collection, log
from shared_seed.collection import Request
from shared_seed.errors import ModelError
from shared_seed.estimate import Parameters
from shared_seed.facts import Facts
from shared_seed.folder import LOG_NAME
from shared_seed.integrations.transformers.models import hold, load, skeleton
from shared_seed.recipe import Lora
from shared_seed.replay import replay
from shared_seed.run import Part, settings_for, take_part
from shared_seed.summary import Summary

MODELS = collection.names("models")

HEADS = {
    "opt-125m": (12, 12),
    "opt-350m": (16, 16),
    "opt-1.3b": (32, 32),
    "opt-2.7b": (32, 32),
    "opt-6.7b": (32, 32),
    "opt-13b": (40, 40),
    "smollm2-135m": (9, 3),
    "smollm2-360m": (15, 5),
    "smollm2-1.7b": (32, 32),
    "tinyllama-1.1b": (32, 4),
    "llama-3.2-1b": (32, 8),
    "llama-3.2-3b": (24, 8),
    "llama-3.1-8b": (32, 8),
}
"""By model: heads, and heads of keys and values."""

DIRECTIONS = 4
"""Of each batch, in all methods of the collection."""


def facts_of(name: str) -> Facts:
    return Facts.of(collection.part("models", name)["facts"], name)


def shrunk(config: dict[str, Any]) -> dict[str, Any]:
    """The same architecture and flags at a tiny size: each ratio that makes a difference stays.

    Rows of matrices are multiples of 64, which share a scale in 4 bits.
    """
    small = dict(config)
    groups = config["num_attention_heads"] // config.get("num_key_value_heads", config["num_attention_heads"])
    heads = 4 if groups == 1 else 2 * groups
    small |= {"vocab_size": len(tiny.WORDS) + 2, "hidden_size": 32 * heads, "num_attention_heads": heads}
    small |= {"num_hidden_layers": 2, "max_position_embeddings": 64, "pad_token_id": 0}
    if config["model_type"] == "opt":
        tall = config["word_embed_proj_dim"] < config["hidden_size"]
        return small | {"ffn_dim": 64, "word_embed_proj_dim": (16 if tall else 32) * heads}
    small |= {"intermediate_size": 64, "num_key_value_heads": heads // groups, "head_dim": 32}
    if "rope_scaling" in config:
        small["rope_scaling"] = config["rope_scaling"] | {"original_max_position_embeddings": 32}
    return small


@pytest.fixture
def home(tmp_path: Path) -> Path:
    """A folder with data and a task for it."""
    tiny.save_rows(tmp_path / "rows.csv", 60)
    task = {"prompt": "{text} it was", "words": {"0": "terrible", "1": "great"}, "test_rows": 20}
    content = {"dataset": str(tmp_path / "rows.csv"), "task": task}
    (tmp_path / "task.yaml").write_text(yaml.safe_dump(content))
    return tmp_path


def trained(home: Path, name: str, method: str, *overrides: str) -> Summary:
    """Two steps of a run of the model at a tiny size, in the Trainer."""
    torch.manual_seed(0)
    from transformers import AutoConfig, AutoModelForCausalLM

    config = AutoConfig.for_model(**shrunk(facts_of(name).config))
    AutoModelForCausalLM.from_config(config).save_pretrained(home / "model")
    tiny.tokenizer().save_pretrained(home / "model")
    parts = [f"models/{name}", "task", f"methods/{method}"]
    (home / "recipe.yaml").write_text(yaml.safe_dump({"extends": parts, "model": str(home / "model")}))
    found = (
        Request(str(home / "recipe.yaml"), ("training.steps=2", "training.batch_size=4", *overrides)).find().recipe
    )
    settings = settings_for(found, home / "run", name="peer 1", number=0)
    return take_part(found, settings, Part(), True, lambda event: None)


def assert_replays(home: Path, summary: Summary) -> None:
    assert summary.gradients == 2 * DIRECTIONS
    contents = log.read(home / "run" / LOG_NAME)
    assert contents.digest is not None
    assert replay(contents).digest == contents.digest[1].hex() == summary.digest


def test_there_are_13_models() -> None:
    assert sorted(HEADS) == MODELS


@pytest.mark.parametrize("name", MODELS)
def test_the_facts_of_a_model_agree_with_its_configuration(name: str) -> None:
    facts = facts_of(name)
    model = skeleton(facts.config)
    assert Parameters.of(model) == Parameters(facts.parameters, facts.parameters)
    billions = facts.parameters / 1e9
    said = name.rsplit("-", 1)[1]
    number = float(said[:-1]) / (1000 if said.endswith("m") else 1)
    assert billions == pytest.approx(number, rel=0.24 if name == "llama-3.2-1b" else 0.1)
    head, embedding = model.get_output_embeddings().weight, model.get_input_embeddings().weight
    tied = facts.config["tie_word_embeddings"]
    assert (head is embedding) == tied
    config = model.config
    heads = config.num_attention_heads
    assert (heads, getattr(config, "num_key_value_heads", heads)) == HEADS[name]
    assert facts.download == 2 * facts.parameters
    assert facts.gated == name.startswith("llama-3")


@pytest.mark.parametrize("name", MODELS)
def test_an_adapter_of_a_model_has_the_parameters_of_its_matrices(name: str) -> None:
    facts, rank = facts_of(name), 8
    found = Parameters.of(skeleton(facts.config, Lora(rank=rank)))
    config = facts.config
    hidden, (heads, keys) = config["hidden_size"], HEADS[name]
    values = hidden * keys // heads
    expected = config["num_hidden_layers"] * rank * (hidden + hidden + hidden + values)
    assert found.trained == expected
    assert found.total == facts.parameters + expected


@pytest.mark.parametrize("name", ["opt-350m", "smollm2-135m", "llama-3.1-8b"])
def test_embeddings_are_trained_only_where_a_recipe_says_so(home: Path, name: str) -> None:
    request = Request(str(tiny.recipe(home)), ("training.embeddings=true",))
    config = shrunk(facts_of(name).config)
    everything, held = skeleton(config), skeleton(config)
    assert hold(everything, request.find().recipe) is everything
    assert all(p.requires_grad for p in everything.parameters())
    hold(held, Request(str(home / "tiny.yaml"), ()).find().recipe)
    stays = {name for name, p in held.named_parameters(remove_duplicate=False) if not p.requires_grad}
    expected = {"lm_head.weight", "model.embed_tokens.weight"}
    if config["model_type"] == "opt":
        expected = {"lm_head.weight", "model.decoder.embed_tokens.weight", "model.decoder.embed_positions.weight"}
    assert stays == expected


@pytest.mark.parametrize("name", MODELS)
def test_a_model_trains_all_parameters_and_replays(home: Path, name: str) -> None:
    assert_replays(home, trained(home, name, "full"))


@pytest.mark.parametrize("name", MODELS)
def test_a_model_trains_an_adapter_and_replays(home: Path, name: str) -> None:
    assert_replays(home, trained(home, name, "lora"))


@pytest.mark.parametrize("name", ["llama-3.1-8b", "opt-350m", "opt-6.7b"])
def test_a_base_of_4_bits_trains_an_adapter_and_replays(home: Path, name: str) -> None:
    assert_replays(home, trained(home, name, "lora-4bit"))
    recipe = Request(str(home / "recipe.yaml"), ("training.steps=2",)).find().recipe
    model, _ = load(recipe.model, recipe.lora, 0, "4bit")
    layer = model.get_base_model().get_decoder().layers[0].self_attn
    assert layer.k_proj.weight.dtype is torch.uint8
    assert layer.q_proj.base_layer.weight.dtype is torch.uint8
    assert layer.q_proj.lora_A["default"].weight.dtype is torch.float32
    assert model.get_input_embeddings().weight.dtype is torch.bfloat16


def test_a_base_of_4_bits_trains_in_lightning_too(home: Path) -> None:
    assert_replays(home, trained(home, "llama-3.1-8b", "lora-4bit", "training.trainer=lightning"))


def test_4_bits_without_what_quantises_are_refused(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name, *rest: None)
    with pytest.raises(ModelError, match=r"pip install 'shared-seed\[4bit\]'"):
        load(str(home), Lora(), 0, "4bit")


def test_what_makes_models_differ_is_in_their_tiny_versions() -> None:
    small = {name: skeleton(shrunk(facts_of(name).config)) for name in MODELS}
    assert [n for n, m in small.items() if getattr(m.get_decoder(), "project_in", None)] == ["opt-350m"]
    tied = {n for n, m in small.items() if m.get_output_embeddings().weight is m.get_input_embeddings().weight}
    assert set(MODELS) - tied == {"llama-3.1-8b", "tinyllama-1.1b"}
    llamas = {n: m.config for n, m in small.items() if not n.startswith("opt")}
    grouped = {n: c.num_attention_heads // c.num_key_value_heads for n, c in llamas.items()}
    assert grouped == {n: HEADS[n][0] // HEADS[n][1] for n in llamas}
    scaled = {n for n, c in llamas.items() if c.rope_parameters["rope_type"] == "llama3"}
    assert scaled == {"llama-3.1-8b", "llama-3.2-1b", "llama-3.2-3b"}
