"""``Trainer.push_to_hub``, with a real Trainer, to a Hub on this machine."""

from __future__ import annotations

import json
import re
from pathlib import Path

import torch
from huggingface_hub import ModelCard
from safetensors.torch import load_file

import models
from hub_client import TOKENS, child, fetch
from hub_server import HubServer
from hub_store import card_problems
from shared_seed import card, log, replay
from shared_seed.manifest import Manifest

SCRIPT = Path(__file__).with_name("push_process.py")


def test_a_trainers_push_takes_card_log_and_manifest_along_and_the_log_replays(tmp_path: Path) -> None:
    with HubServer(tmp_path / "served", TOKENS) as hub:
        code, out, err = child(hub, tmp_path, [SCRIPT, tmp_path, "me/small", "all_checkpoints"], "hf_me")
        assert code == 0, err
        fetched = fetch(hub, tmp_path, "me/small")
    digest = out.split()[-1]
    text = (fetched / "README.md").read_text()
    assert card_problems(text) == ([], [])
    assert set(card.TAGS) <= set(ModelCard(text).data.tags)
    assert "- optimizer: shared-seed SPSA" in text
    assert f"`{digest}`" in text
    assert "| peers | 1 |" in text
    assert re.search(r"\| peak memory of a peer's process \| [\d,]+ MB \|", text)
    assert "hf_hub_download('me/small', 'gradients.sslog')" in text
    contents = log.read(fetched / "gradients.sslog")
    assert contents.finished
    assert Manifest.model_validate(json.loads((fetched / "manifest.json").read_text())) == contents.manifest
    torch.manual_seed(0)
    model = models.llama()
    replica = replay.rebuild(model, contents)
    assert replica.digest().hex() == digest
    pushed = load_file(fetched / "model.safetensors")
    for name, values in model.state_dict().items():
        assert name == "lm_head.weight" or torch.equal(pushed[name], values)  # tied to the embedding
    # Its checkpoints hold the run's state, to go on from.
    checkpoints = {path.name: {p.name for p in path.iterdir()} for path in fetched.glob("checkpoint-*")}
    assert set(checkpoints) == {"checkpoint-2", "checkpoint-4"}
    for files in checkpoints.values():
        assert {"gradients.sslog", "peer.json", "model.safetensors"} <= files
    assert "peer.json" not in {path.name for path in fetched.iterdir()}
