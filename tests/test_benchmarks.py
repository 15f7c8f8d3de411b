"""Every benchmark runs, tiny, so that none can rot."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path

import pytest
import torch

import chromium
import models
import tiny

BENCHMARKS = Path(__file__).parent.parent / "benchmarks"


pytestmark = pytest.mark.usefixtures("benchmarks")


def test_every_benchmark_has_a_test() -> None:
    names = {path.stem for path in BENCHMARKS.glob("*.py")}
    assert names == {
        "attacks",
        "audit",
        "catchup",
        "converge",
        "curvature",
        "decay_noise",
        "dry_run",
        "faults",
        "fuzz",
        "gpu_bits",
        "import_torch",
        "memory",
        "merge",
        "noise",
        "padding",
        "pictures",
        "plugins",
        "precision",
        "probe_noise",
        "prompts",
        "relay",
        "replay",
        "scaling",
        "shares",
        "simulate",
        "speed",
        "startup",
        "step",
        "update",
        "wire_bytes",
    }
    here = [path.read_text() for path in Path(__file__).parent.glob("test_benchmarks*.py")]
    tested = {name for text in here for name in re.findall(r"^def test_(\w+)\(", text, re.MULTILINE)}
    assert names <= tested


def test_prompts(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    import prompts

    scores = prompts.measure(tiny.recipe(tmp_path), 20, (("{text} it was", "terrible", "great"),))
    assert [score.rows for score in scores] == [20]
    assert "'{text} it was' terrible/great" in capsys.readouterr().out


def test_pictures(tmp_path: Path) -> None:
    if why := chromium.left_out():
        pytest.skip(why)
    # It forks, which a process of many threads should not.
    words = [sys.executable, BENCHMARKS / "pictures.py", "--quick", "--out", tmp_path]
    done = subprocess.run([str(word) for word in words], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "mallory: " in done.stdout
    assert done.stdout.count("banned by the owner") == 1
    for name in ("desktop-light", "phone-dark"):
        assert (tmp_path / f"{name}.png").read_bytes().startswith(b"\x89PNG")


def test_pictures_of_a_card(tmp_path: Path) -> None:
    import pictures

    if why := chromium.left_out():
        pytest.skip(why)
    pictures.shoot_card(tiny.run(tiny.recipe(tmp_path, steps=3)), tmp_path / "pictures")
    for name, width in pictures.CARD_SHOTS.items():
        head = (tmp_path / "pictures" / f"{name}.png").read_bytes()[:24]
        assert head.startswith(b"\x89PNG")
        assert int.from_bytes(head[16:20], "big") == width  # No wider: nothing in the card pushes the page open.


def save_reviews(folder: Path) -> str:
    """Rows of two sources, as the real reviews have them."""
    lines = tiny.save_rows(folder / "plain.csv", 400).read_text().splitlines()
    table = [
        lines[0] + ",source",
        *(f"{line},{('imdb', 'rotten_tomatoes')[i % 2]}" for i, line in enumerate(lines[1:])),
    ]
    (folder / "reviews.csv").write_text("\n".join(table) + "\n")
    return str(folder / "reviews.csv")


def test_attacks(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    import attacks
    from hostility import reviews
    from hostility.behaviour import ATTACKS
    from hostility.game import Scale

    data = reviews.load(save_reviews(tmp_path), test_rows=40)
    scale = Scale(rounds=4, batch=8, seeds=2)
    rows = attacks.measure(data, scale)
    assert len(rows) == len(ATTACKS) * (len(attacks.DEFENCES) - 1) + 2
    for row in rows:
        assert all(outcome.in_place is not False for outcome in row.outcomes), row
        assert all(0 <= accuracy <= 1 for accuracy in (*row.accuracies, *row.excluded))
    quiet = [row for row in rows if row.attack == "sign flip"]
    assert all(outcome.in_place and outcome.rounds == 4 for row in quiet for outcome in row.outcomes)
    banned = quiet[-1]
    assert banned.defence == "sum, banned halfway"
    assert banned.excluded == banned.accuracies, "once they are banned, nothing of theirs is left"
    attacks.write(tmp_path / "out", rows, scale)
    assert json.loads((tmp_path / "out" / "attacks.json").read_text())["scale"]["rounds"] == 4
    assert (tmp_path / "out" / "attacks.png").stat().st_size > 1000
    lines = (tmp_path / "out" / "attacks.md").read_text().splitlines()
    assert len(lines) == 2 + len(ATTACKS)
    assert "taken back exactly in 2 of 2" in capsys.readouterr().out


def test_attacks_say_what_their_papers_say() -> None:
    import random

    from hostility import behaviour
    from hostility.behaviour import View

    own = View([1.0, -2.0, 3.0], [0.5, -0.25], False, random.Random(0))
    shared = View([1.0, 2.0, 6.0], [0.5, -0.25], True, random.Random(0))
    assert list(behaviour.flip(own)) == [-0.5, 0.25]
    assert list(behaviour.inner_product(0.5)(own)) == [-0.25, 0.125]
    assert list(behaviour.inner_product(0.5)(shared)) == [-1.5, -1.5]
    assert list(behaviour.little(1.0)(shared)) == pytest.approx([3 - (14 / 3) ** 0.5] * 2)
    assert list(behaviour.little(1.0)(own)) == pytest.approx([-2 - (2 / 3) ** 0.5, 2 + (2 / 3) ** 0.5])
    assert list(behaviour.mimic(shared)) == [1.0, 1.0]
    assert list(behaviour.sybils(shared)) == [-0.5, -0.5]
    # 50 workers, 24 of them hostile: 2 supporters are needed of 26, so that 24 of 26 may be farther off.
    assert behaviour.most_deviations(50, 24) == pytest.approx(1.426, abs=1e-3)


def test_merge(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    import merge
    from hostility import reviews

    scale = merge.Scale(together=2, apart=(1, 3), after=2, peers=4, batch=8, rates=(0.01, 0.02), seeds=2)
    rows = merge.measure(reviews.load(save_reviews(tmp_path), test_rows=40), scale)
    assert [(row.rate, row.seed, row.apart) for row in rows] == [
        (rate, seed, apart) for rate in (0.01, 0.02) for seed in (0, 1) for apart in (1, 3)
    ]
    for row in rows:
        assert row.exact, "a union is what one half gets that hears the other's messages"
        assert set(row.accuracy) == set(row.loss) == set(merge.NAMES)
        assert row.moved["union"] > 0
    merge.write(tmp_path / "out", rows, scale)
    assert len((tmp_path / "out" / "merge.md").read_text().splitlines()) == 2 + 4
    assert len(json.loads((tmp_path / "out" / "merge.json").read_text())["rows"]) == 8
    assert "exact: True" in capsys.readouterr().out


def test_probe_noise(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    import probe_noise

    errors = probe_noise.measure(tiny.recipe(tmp_path), 3, (-10, -6))
    assert errors["fp32", -10] == 0
    assert 0 < errors["fp32", -6] < 1
    assert errors["bf16", -10] > 0
    assert "rms projected gradient" in capsys.readouterr().out


def test_padding(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    import padding

    path = tiny.recipe(tmp_path, batch_size=4)
    texts = [f"{'very ' * (7 * i % 23)}good,1" for i in range(240)]
    (tmp_path / "rows.csv").write_text("\n".join(["text,label", *texts]))
    random, _, alone, together = padding.measure(path, 2)
    assert random.own == alone.own == together.own == pytest.approx(200 * 14, rel=0.1)
    assert random.computed > 1.3 * together.own > together.computed > together.own
    assert random.waited > alone.waited > together.waited
    assert len(capsys.readouterr().out.splitlines()) == 4


def test_precision(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    import precision

    ratio, chosen = precision.measure(tiny.recipe(tmp_path, precision="fp32"), 8, 2)
    assert ratio > 0
    said = capsys.readouterr().out.splitlines()
    assert [line.split()[0] for line in said] == ["fp32", "bf16", "bf16"]
    assert said[-1].endswith(f"auto: {chosen}")
    assert chosen.reason != "as the recipe says"


def test_audit(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    import audit

    found = audit.measure(tiny.recipe(tmp_path), peers=2, rounds=6, public_rows=8)
    assert found.differences["again"] == (0, 0, 0, 0)
    assert found.differences["other precision"][2] > 0
    assert found.differences["late messages"][2] > 0
    assert found.power["flipped signs"] > 0.5
    assert -1 <= found.correlation <= 1
    assert audit.chance_to_name(20, found.power["flipped signs"], 2) > 0.9 > audit.chance_to_name(20, 0.02, 2)
    assert "public rows: correlation" in capsys.readouterr().out


def test_import_torch(capsys: pytest.CaptureFixture[str]) -> None:
    import import_torch

    median, least = import_torch.measure(2)
    assert 0 < least <= median < 1000
    assert "2 runs: median" in capsys.readouterr().out


def test_plugins(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    import plugins

    model, reviews = tiny.save_model(tmp_path / "model"), tiny.save_rows(tmp_path / "reviews.csv", 64)
    runs = plugins.measure(
        {
            "trainer_sentiment": [str(model), str(reviews), "--steps", "4", "--batch", "4"],
            "lightning_digits": ["--epochs", "2"],
        }
    )
    found = {(run.example, run.way): run for run in runs}
    assert len(found) == 8
    for example in ("trainer_sentiment", "lightning_digits"):
        assert found[example, "script's rate"].last_loss != found[example, "shared-seed"].last_loss
        assert found[example, "as it stands"].optimizer_state > 0
        assert found[example, "shared-seed"].optimizer_state == 0
        assert found[example, "inference"].first_loss is None
        assert found[example, "shared-seed"].first_loss is not None
    assert min(run.peak for run in runs) > 50
    assert "shared-seed" in capsys.readouterr().out


def test_a_line_that_an_example_no_longer_has_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import plugins

    monkeypatch.setitem(plugins.CHANGES, "lightning_digits", {"shared-seed": ("gone()", "")})
    with pytest.raises(ValueError, match=r"examples/lightning_digits.py has no line 'gone\(\)'"):
        plugins.run("lightning_digits", "shared-seed", [], tmp_path)


def test_wire_bytes(capsys: pytest.CaptureFixture[str]) -> None:
    import wire_bytes

    rows = wire_bytes.measure(128)
    assert [row.samples for row in rows] == [1, 8, 64]
    # Live, each message has 29 bytes of header and 64 of signature; otherwise 64 messages share a signature.
    assert [row.live for row in rows] == [94.0, (93 + 8) / 8, (93 + 64) / 64]
    assert all(row.chunk < row.log < row.live for row in rows)
    assert "a heartbeat:" in capsys.readouterr().out


def test_gpu_bits(capsys: pytest.CaptureFixture[str]) -> None:
    pytest.importorskip("triton", reason="Triton is there on Linux only")
    import gpu_bits

    results = gpu_bits.measure(gpu_bits.Sizes(elements=2_500, vocabulary=19, width=24, samples=3))
    assert len(results) == 13
    assert all(results.values())
    out = capsys.readouterr().out
    assert ("no GPU here: Triton's interpreter" in out) != torch.cuda.is_available()
    assert "PASS update\n" in out
    assert "13 of 13 are the same" in out


def test_gpu_bits_finds_wrong_bits(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    pytest.importorskip("triton", reason="Triton is there on Linux only")
    import gpu_bits
    from shared_seed.noise import gpu

    add_signs = gpu.add_signs
    monkeypatch.setattr(
        gpu, "add_signs", lambda values, s, amounts, t, *rest: add_signs(values, s, amounts, t + 1)
    )
    results = gpu_bits.measure(gpu_bits.Sizes(elements=300, vocabulary=5, width=8, samples=2))
    wrong = {name.split(":")[0] for name, passed in results.items() if not passed}
    assert wrong >= {"sum of signs", "update", "dense tensors at +1 epsilon", "dense tensors at -1 epsilon"}
    assert results["rows of signs"]
    assert "FAIL sum of signs" in capsys.readouterr().out


REPORT = """<testsuites><testsuite>
<testcase classname="a" name="kept"/>
<testcase classname="a" name="lost">{failure}</testcase>
<testcase classname="a" name="never"><failure message="as ever"/></testcase>
<testcase classname="a" name="out"><skipped message="no GPU"/></testcase>
</testsuite></testsuites>"""


def test_upstream_compare(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.syspath_prepend(str(BENCHMARKS / "upstream"))
    import compare

    (tmp_path / "stock.xml").write_text(REPORT.format(failure=""))
    (tmp_path / "plugin.xml").write_text(REPORT.format(failure='<failure message="ModelError: no&#10;more"/>'))
    words = [str(tmp_path / "stock.xml"), str(tmp_path / "plugin.xml"), "--list", str(tmp_path / "list.md")]
    monkeypatch.setattr(sys, "argv", ["compare.py", *words])
    compare.main()
    out = capsys.readouterr().out
    assert "pass stock: 2 of 4" in out
    assert "of these, pass with the plugin: 1 = 50.0 %" in out
    assert (tmp_path / "list.md").read_text() == "- failed: ModelError: no\n  - `a::lost`\n"


def test_upstream_lightning_plugin(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(BENCHMARKS / "upstream"))
    from lightning.pytorch import Trainer
    from lightning.pytorch.strategies import DDPStrategy

    import lightning_plugin

    arguments = {"accelerator": "cpu", "logger": False, "enable_checkpointing": False}
    lightning_plugin.pytest_configure(None)
    try:
        assert type(Trainer(**arguments).strategy).__name__ == "SharedSeedStrategy"
        assert isinstance(Trainer(devices=2, **arguments).strategy, DDPStrategy)
    finally:
        lightning_plugin.pytest_unconfigure(None)
    assert type(Trainer(**arguments).strategy).__name__ == "SingleDeviceStrategy"


def test_decay_noise(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    import decay_noise

    of_loss, of_decay = decay_noise.measure(tiny.recipe(tmp_path), 3)
    assert of_loss > 0
    assert of_decay > 0
    assert "rms over 3 directions" in capsys.readouterr().out


def test_dry_run(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    import dry_run

    # Linux counts to a child what its parent has had: an estimate must not.
    ballast = bytearray(2_000_000_000)
    assert not any(ballast[:: 1 << 20])
    dry_run.main([str(tiny.recipe(tmp_path)), "training.batch_size=4"])
    said = capsys.readouterr().out.splitlines()
    assert 0.5 < float(said[0].rsplit(":", 1)[1]) < 2
    assert float(said[1].rsplit(":", 1)[1]) > 0


def test_upstream_transformers_plugin(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(BENCHMARKS / "upstream"))
    from transformers import Trainer, TrainingArguments

    import transformers_plugin
    from trainers import rows

    own = Trainer.train
    undo = transformers_plugin._patch()
    try:
        arguments = TrainingArguments(str(tmp_path), max_steps=2, use_cpu=True, report_to=[], save_strategy="no")
        trainer = Trainer(model=models.llama(), args=arguments, train_dataset=rows())
        trainer.train()
    finally:
        undo()
    assert Trainer.train is own
    assert [type(c).__name__ for c in trainer.callback_handler.callbacks].count("SharedSeedCallback") == 1
    assert len(trainer.optimizer.state) == 0


def test_simulate(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    import simulate

    shapes = simulate.TOPOLOGIES
    whole = {setting: dict.fromkeys(shapes, (9,)) for setting in ("calm", "rough", "free")}
    extent = simulate.Extent(whole, {"calm": {"tree": (30,)}, "narrow": {"flat": (20,)}}, (5, 20))
    rows = simulate.measure(tmp_path / "out", extent)
    assert {row.setting for row in rows} == {"calm", "rough", "free", "narrow"}
    assert {row.shape for row in rows} == {"flat", "hubs", "relayed", "tree"}
    assert all(row.broken == [] for row in rows)
    assert {row.peers for row in rows if row.whole < row.peers + row.relays} == {20, 30}
    written = json.loads((tmp_path / "out" / "swarm.json").read_text())
    assert [row["digest"] for row in written["runs"]] == [row.digest for row in rows]
    assert [row["peers"] for row in written["costs"]] == [5, 20]
    assert all(row["message"] > 0 and row["heartbeat_bytes"] > 100 for row in written["costs"])
    assert {path.stem for path in (tmp_path / "out").glob("*.png")} == {
        "busiest",
        "equal",
        "frames",
        "kinds",
        "python",
        "received",
        "rough",
    }
    assert f"digest {rows[0].digest}" in capsys.readouterr().out
    monkeypatch.setattr(sys, "argv", ["simulate.py", "--one", "flat", "3", "--rounds", "1", "--free"])
    assert simulate.main() == 0
    assert "flat         3 peers,     3 whole:     3 messages" in capsys.readouterr().out


def test_faults(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    import faults
    from faulting.runner import Options
    from faulting.schedule import Plan

    options = Options(Plan(6, 4, 1, seed=2, kills=3), "proxy", pause=0.2, deadline=1.0)
    assert faults.measure(options, tmp_path / "out"), capsys.readouterr().out
    written = json.loads((tmp_path / "out" / "faults.json").read_text())
    assert [check["wrong"] for check in written["checks"]] == [[]] * 7
    assert written["killed"]["peer"] >= 3
    assert written["rejoin"]["all"]["count"] >= 1
    assert written["messages"] > 20
    assert written["network"] == "proxy"
    assert "| same weights everywhere | kept | 4 replicas, " in (tmp_path / "out" / "faults.md").read_text()
    assert "kept: 4 replicas" in capsys.readouterr().out


def test_fuzz(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    import fuzz
    from fuzzing import targets

    words = [word for name in targets.TARGETS for word in ("--target", name)]
    monkeypatch.setattr(sys, "argv", ["fuzz.py", "--minutes", "0.005", "--keep", str(tmp_path / "found"), *words])
    assert fuzz.main() == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[0] for line in lines] == list(targets.TARGETS)
    assert all("0 broken promises" in line and int(line.split()[1].replace(",", "")) > 0 for line in lines)
    assert not (tmp_path / "found").exists()
    assert "atheris" not in sys.modules


def test_fuzz_keeps_what_breaks_a_promise(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    import fuzz
    from fuzzing import targets

    def fails(data: bytes) -> None:
        assert b"\x00" not in data, "a zero"

    broken = targets.Target(fails, (), lambda: [b"abc\x00"])
    monkeypatch.setitem(targets.TARGETS, "codec", broken)
    found = fuzz.measure("codec", 0.05)
    (why,) = found.broken
    assert why.startswith("AssertionError at test_benchmarks.py:")
    fuzz.keep(found, tmp_path)
    (path,) = tmp_path.iterdir()
    assert b"\x00" in path.read_bytes()
    assert why in capsys.readouterr().out


def test_relay(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    import relay

    extent = relay.Extent(1, 2, 30, (1, 8), (0.2,), 0.2)
    rows = relay.measure(extent, tmp_path / "out", BENCHMARKS.parent / "src")
    assert all(row.rate > 0 and row.lost == 0 for row in rows)
    assert [(row.what, row.samples) for row in rows if row.share == 1] == [
        ("proxy", 1),
        ("proxy, encrypted", 1),
        ("verification", 1),
        ("relay before", 1),
        ("relay", 1),
        ("relay", 8),
        ("two relays", 1),
    ]
    assert all(0 < row.p50_ms <= row.p99_ms for row in rows if row.share < 1)
    written = json.loads((tmp_path / "out" / "relay.json").read_text())
    assert [row["rate"] for row in written["medians"]] == [row.rate for row in rows]
    assert "| two relays, 1 samples | 20 % |" in (tmp_path / "out" / "relay.md").read_text()
    assert "one signature verified" in capsys.readouterr().out


def test_catchup(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    import catchup

    found = catchup.measure(catchup.Extent(10, 100, 0.05, 1.0), tmp_path / "out")
    assert found.whole.messages >= 1000
    assert found.whole.began_with == 0
    first, second = found.halves
    assert first.messages >= 500
    assert first.began_with == 0 < second.began_with
    assert second.messages >= 1000
    assert found.calm.lost == found.meanwhile.lost == 0
    assert found.calm.count > 0 < found.meanwhile.count
    assert found.full.log_bytes > found.empty.log_bytes
    written = json.loads((tmp_path / "out" / "catchup.json").read_text())
    assert written["found"]["whole"]["received"] == found.whole.received
    assert "| 1,000 messages |" in capsys.readouterr().out
