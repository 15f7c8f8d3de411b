"""The benchmarks of speed and memory run tiny: what they print is measured, and they cannot rot."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any

import pytest
import torch

import models
import tiny

BENCHMARKS = Path(__file__).parent.parent / "benchmarks"
pytestmark = pytest.mark.usefixtures("benchmarks")


@pytest.fixture
def short(tmp_path: Path) -> Any:
    """Options of the speed benchmarks for a tiny model."""
    from common.options import Options

    return Options((str(tiny.save_model(tmp_path / "model")),), quick=True)


def test_step(short: Any, capsys: pytest.CaptureFixture[str]) -> None:
    import step

    rows = step.measure(short, ((2, 8),))
    methods = {(row.precision, row.method) for row in rows}
    assert len(methods) == len(rows) == 7 + 9
    assert {("fp32", "LOZO"), ("bf16", "plain, apart"), ("bf16", "MeZO, bf16 weights")} < methods
    assert all(row.to_plain == 1 for row in rows if row.method == "plain pair")
    assert all(row.ours_faster == 1 for row in rows if row.method == "ours")
    assert all(0 < row.least <= row.seconds for row in rows)
    judged = step.targets([dataclasses.replace(row, tokens=32) for row in rows])
    assert [target.limit for target in judged] == [1.15, 3, 1.15, 8]
    assert "of plain" in capsys.readouterr().out


def test_update(short: Any, capsys: pytest.CaptureFixture[str]) -> None:
    import update

    rows = update.measure(short, (8, 64))
    assert [row.gradients for row in rows] == [8, 64]
    assert all(row.parameters > 1000 and row.copies > 0 and row.than_a_pass_each > 0 for row in rows)
    assert [target.limit for target in update.targets(rows)] == [2, 4, 30]
    update.check_bits(short.models[0], "cpu")
    assert "bits on cpu as on the CPU" in capsys.readouterr().out


def test_noise(short: Any, capsys: pytest.CaptureFixture[str]) -> None:
    import noise

    rows = noise.measure(short, 1 << 12)
    assert [row.method for row in rows] == ["signs", "shift"]
    assert all(row.nanoseconds > 0 for row in rows)
    assert [target.limit for target in noise.targets(rows)] == [1.3, 1.3]
    assert "ns a weight" in capsys.readouterr().out


def test_replay(short: Any, capsys: pytest.CaptureFixture[str]) -> None:
    import replay

    (row,) = replay.measure(short, 200)
    assert row.gradients == 20
    assert min(row.seconds, row.setup, row.rate, row.than_one_by_one, row.than_decomfl) > 0
    base = replay.Base(short.models[0], "cpu")
    before = models.bits(base.model)
    base.seconds(3)
    assert models.bits(base.model) == before
    assert [(target.limit, target.at_least) for target in replay.targets([row])] == [(50, True)]
    assert "20 gradients in" in capsys.readouterr().out


def test_memory(short: Any, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    import memory
    from common import resident

    rows = memory.measure(short, (2, 8), ("inference", "ours"))
    assert [row.way for row in rows] == ["inference", "ours"]
    assert all(50 < row.after_loading <= row.peak for row in rows)
    assert rows[0].to_inference == 1
    assert [target.limit for target in memory.targets(rows)] == [1.05]
    with pytest.raises(RuntimeError, match="resident ours failed"):
        memory.run("ours", "nowhere", (2, 8), 1, "cpu")
    capsys.readouterr()
    for way in resident.WAYS:
        resident.main([way, short.models[0], "2", "8", "1", "cpu"])
        assert json.loads(capsys.readouterr().out.splitlines()[-1])["after_loading"] > 0


def test_startup(short: Any, capsys: pytest.CaptureFixture[str]) -> None:
    import startup

    parts = {"import": 1.0, "open": 2.0, "step": 3.0, "total": 9.0}
    row = startup.compare("tiny", "warm", [{"total": 5.0}, {"total": 7.0}], [parts, {**parts, "total": 8.0}])
    assert (row.inference, row.added, row.importing, row.opening, row.stepping) == (6, 2.5, 1, 2, 3)
    found = startup.run("ours", short.models[0], (2, 8), "cpu", {})
    assert set(found) == {"loading", "import", "open", "step", "total"}
    assert found["total"] == pytest.approx(sum(found.values()) - found["total"])
    assert [(target.limit, target.met) for target in startup.targets([row])] == [(2, False)]
    assert "a first step adds 2.50 s" in capsys.readouterr().out


def test_scaling(short: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    import scaling

    model = short.models[0]
    extent = scaling.Extent((model,), ((1, 8), (2, 8)), (1, 4), (1, 5), model, (2, 8), 1)
    curves = scaling.measure(short, tmp_path / "out", extent)
    assert [curve.name for curve in curves] == ["parameters", "tokens", "peers", "gradients"]
    assert all(len(values) == len(curve.x) for curve in curves for values in curve.seconds.values())
    assert {path.name for path in (tmp_path / "out").glob("*.png")} == {f"{curve.name}.png" for curve in curves}
    assert json.loads((tmp_path / "out" / "scaling.json").read_text())["machine"]["cores"] > 0
    assert "our replay" in capsys.readouterr().out


def test_speed(short: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    import speed

    judged = speed.measure(short, tmp_path, ("update", "replay"))
    written = json.loads((tmp_path / "speed.json").read_text())
    assert [target["what"] for target in written["targets"]] == [target.what for target in judged]
    assert len(written["rows"]["update"]) == 3
    assert (tmp_path / "speed.png").stat().st_size > 1000
    assert (tmp_path / "table.md").read_text() in capsys.readouterr().out
    others = {"attacks", "converge", "merge", "precision", "scaling", "simulate", "speed"}
    assert set(speed.PARTS) | others == {
        path.stem for path in BENCHMARKS.glob("*.py") if "from common" in path.read_text()
    }


def test_targets_say_by_how_much_they_were_missed() -> None:
    from common.target import Target, table

    targets = [Target("a", 2, 1.5), Target("b", 2, 3), Target("c", 4, 3, at_least=True, unit=" s")]
    assert [target.verdict for target in targets] == ["met", "missed by 50 %", "missed by 25 %"]
    assert table(targets).splitlines()[-1] == "| c | >= 4 s | 3 s | missed by 25 % |"


def test_ratios_are_taken_within_rounds() -> None:
    from common.timing import Times, contest

    times = Times()
    for round_, (a, b) in enumerate([(1.0, 2.0), (10.0, 20.0), (3.0, 9.0)]):
        times.note("a", round_, a)
        times.note("b", round_, b)
    assert times.ratio("b", "a") == 2
    assert times.least_ratio("b", "a") == 2
    calls: list[str] = []
    contest({name: lambda name=name: calls.append(name) for name in "xyz"}, 3, {"y": 2}, ("z",))
    assert calls == ["x", "y", *"xyz", *"zx", *"zxy"]


def test_other_methods_do_what_their_papers_say(short: Any) -> None:
    from common import decomfl, lozo, mezo
    from common.workloads import Workload, batch, build

    model = build(short.models[0])
    before = {name: values.clone() for name, values in model.named_parameters()}
    mezo.add(mezo.draw(model, 3), 0.5)
    assert any(not torch.equal(values, before[name]) for name, values in model.named_parameters())
    mezo.add(mezo.draw(model, 3), -0.5)
    for name, values in model.named_parameters():
        torch.testing.assert_close(values, before[name])
    work = Workload(model, batch(model, 2, 8))
    for step in (mezo.step(work), decomfl.step(work), lozo.step(work)):
        step()
    for name, values in model.named_parameters():
        torch.testing.assert_close(values, before[name], rtol=1e-3, atol=1e-4)
