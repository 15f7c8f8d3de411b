"""Audits of real runs on a tiny model, honest ones and ones with a dishonest peer."""

from __future__ import annotations

import dataclasses
import json
import os
import random
import subprocess
import sys
import threading
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml

import tiny
from models import message, opt, stream
from shared_seed import cli, cli_audit, codec, data, folder, history, identity, log, recipe
from shared_seed.audit import LEAST, Audit, Options, audit, breaks, choose, recompute
from shared_seed.batches import AssignedBatches
from shared_seed.classification import Classification
from shared_seed.cli_audit import NAMED
from shared_seed.errors import LogError, RecipeError
from shared_seed.examples import Example
from shared_seed.folder import LOG_NAME
from shared_seed.integrations.transformers.models import load
from shared_seed.job import Job
from shared_seed.messages import Message, Stream, as_float32
from shared_seed.proofs import sign_head
from shared_seed.rate import Rate
from shared_seed.recipe import Recipe
from shared_seed.run import Part, settings_for, take_part
from shared_seed.session import Session
from shared_seed.settings import Settings
from shared_seed.signed import Signed
from shared_seed.swarm.zmq import free_ports
from shared_seed.terminal import Terminal
from shared_seed.training import Training
from shared_seed.verdict import Agreement, Correlation, Verdict

STEPS = 20
HOSTILE = str(Path(__file__).with_name("hostile_process.py"))


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a tiny recipe whose run assigns batches."""
    where = tmp_path_factory.mktemp("home")
    tiny.recipe(where, batches="assigned", steps=STEPS)
    return where


def changed(home: Path, to: Path, temperature: float = 1, **training: Any) -> Path:
    content = yaml.safe_load((home / "tiny.yaml").read_text())
    content["training"] |= training
    content["task"]["temperature"] = temperature
    to.write_text(yaml.safe_dump(content))
    return to


def audited(run: Path, **options: Any) -> Audit:
    return audit(log.read(run / LOG_NAME), Options(seed=1, **options))


def published(run: Path) -> Stream:
    """The stream of the peer that a folder belongs to."""
    return folder.decode_note((run / folder.PEER_NAME).read_bytes(), "the note")[0]


# Runs of sessions in threads: fast, so that every attack can have one


class Flipper(Session):
    """Publishes every gradient with its sign changed."""

    def measure(self, loss: Any, context: Any = None) -> Any:
        measured = super().measure(loss, context)
        self._pending.codes[-1] ^= 0x80
        return measured


class Gambler(Session):
    """Publishes random bytes of the right size."""

    def measure(self, loss: Any, context: Any = None) -> Any:
        measured = super().measure(loss, context)
        drawn = random.Random(self.round).gauss(0, 1.5)
        self._pending.codes[-1] = codec.encode(drawn, self.manifest.scale_exponent)
        return measured


class Replayer(Session):
    """Publishes what it published in its first four rounds, again and again."""

    def measure(self, loss: Any, context: Any = None) -> Any:
        measured = super().measure(loss, context)
        own = [m for m in self.protocol.archive if m.stream == self.stream]
        if self.round >= 4:
            self._pending.codes[-1] = own[self.round % 4].codes[0]
        return measured


@dataclass
class Peer:
    """What one thread of a run needs."""

    kind: type[Session]
    job: Job
    error: BaseException | None = None

    @classmethod
    def of(cls, kind: type[Session], terms: Recipe, settings: Settings, own: tuple[int, int] | None) -> Peer:
        model, tokenizer = load(terms.model)  # before any thread: transformers loads one model at a time
        task = Classification(terms.task, tokenizer, model)
        rows = data.split(data.load(terms.dataset), terms.task, terms.training.seed).train
        rows = data.shard(rows, *own) if own else rows
        return cls(kind, Job(terms, settings, model, task, task.encode(rows), lambda session, step: None))

    def train(self) -> None:
        try:
            self._train()
        except BaseException as error:
            self.error = error

    def _train(self) -> None:
        job, wanted = self.job, self.job.recipe.training
        # On shards nothing is assigned; each peer then takes its own rows in the same way.
        batches = job.assigned or AssignedBatches(job.task, job.features, wanted.batch_size, 0)
        training = Training(rounds=wanted.steps, title="tiny", recipe=job.carried)
        session = self.kind.open(job.model, job.settings, training)
        try:
            session.begin()
            while not session.is_over():
                session.measure(lambda: job.assigned_loss(batches, session))
                session.step(wanted.base_rate)
            session.finish()
        finally:
            session.close()


def run_threads(path: Path, out: Path, second: type[Session], shards: bool = False) -> Path:
    """A run of three sessions, of which ``second`` is the second one's; returns the first one's folder."""
    terms = recipe.load(path)
    address = f"tcp://127.0.0.1:{free_ports()}"
    peers = []
    for number, kind in enumerate((Session, second, Session)):
        where: dict[str, Any] = {"join": (address,)} if number else {"listen": address}
        names: dict[str, Any] = {"number": number, "name": f"peer {number}", "start_with": 3}
        settings = settings_for(terms, out / str(number), **names, **where)
        peers.append(Peer.of(kind, terms, settings, (number, 3) if shards else None))
    threads = [threading.Thread(target=peer.train) for peer in peers]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(240)
    errors = [peer.error for peer in peers if peer.error is not None]
    if errors:
        raise errors[0]
    return out / "0"


@pytest.fixture(scope="module")
def honest(home: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a run of three honest sessions on assigned batches."""
    return run_threads(home / "tiny.yaml", tmp_path_factory.mktemp("honest"), Session)


def test_an_honest_run_gives_every_byte_again(honest: Path) -> None:
    found = audited(honest, share=1)
    assert found.assigned
    assert len(found.streams) == 3
    for report in found.streams:
        assert isinstance(report, Agreement)
        assert (report.messages, report.audited, report.agree, report.worst) == (STEPS, STEPS, STEPS, 0)
        assert report.verdict is Verdict.AGREES
    assert found.named == []


@pytest.mark.parametrize("temperature", [1, 16])
def test_every_byte_of_several_directions_on_a_batch_comes_again(
    home: Path, tmp_path: Path, temperature: float
) -> None:
    found_rate = {"learning_rate": "auto", "directions": 3, "probes_per_step": 2}
    path = changed(home, tmp_path / "several.yaml", temperature, steps=4, **found_rate)
    run = alone(path, tmp_path / "run")
    contents = log.read(run / LOG_NAME)
    assert {len(message.codes) for message in contents.messages} == {6}
    terms = recipe.load(tmp_path / "several.yaml")
    model, tokenizer = load(terms.model)
    task = Classification(terms.task, tokenizer, model)
    rows = data.split(data.load(terms.dataset), terms.task, terms.training.seed).train
    batches = AssignedBatches(task, task.encode(rows), terms.training.batch_size, terms.training.seed)
    every = [(message, index) for message in contents.messages for index in range(6)]
    checks = recompute(contents, model, batches, every, False, 3)
    rounding = 2.0**-22 / terms.training.epsilon  # of a loss below 1, which may be summed in another order
    for check in checks:
        near = (codec.encode(check.recomputed + side * rounding) for side in (-1, 0, 1))
        assert check.code in near
    (report,) = audited(run, share=1).streams
    assert report.verdict is Verdict.AGREES


@pytest.mark.parametrize("attack", [Flipper, Gambler, Replayer])
def test_the_one_dishonest_session_is_named_and_no_other(
    home: Path, tmp_path: Path, attack: type[Session]
) -> None:
    run = run_threads(home / "tiny.yaml", tmp_path, attack)
    for share in (1, 0.02):
        found = audited(run, share=share)
        assert found.named == [published(tmp_path / "1")]
        assert all(r.verdict is Verdict.AGREES for r in found.streams if r.stream not in found.named)


def mostly_good(path: Path, count: int, seed: int) -> Path:
    """Rows of which few are bad, so that all peers' gradients have much in common from the first round on."""
    header, *rows = tiny.save_rows(path, count, seed).read_text().splitlines()
    bad = [row for row in rows if row.endswith(",0")]
    good = [row for row in rows if row.endswith(",1")]
    path.write_text("\n".join([header, *good, *bad[: len(bad) // 8]]) + "\n")
    return path


@pytest.mark.parametrize(("kind", "named"), [(Flipper, [1]), (Session, [])])
def test_on_private_rows_flipped_signs_are_named_by_public_ones(
    home: Path, tmp_path: Path, kind: type[Session], named: list[int]
) -> None:
    path = changed(home, tmp_path / "private.yaml", batches="shuffled", steps=40, learning_rate=1e-4)
    content = yaml.safe_load(path.read_text())
    content["dataset"] = str(mostly_good(tmp_path / "rows.csv", 1200, 0))
    path.write_text(yaml.safe_dump(content))
    run = run_threads(path, tmp_path, kind, shards=True)
    found = audited(run, share=1, rows=40)
    assert not found.assigned
    assert found.named == [published(tmp_path / str(n)) for n in named]
    assert all(r.verdict is Verdict.AGREES for r in found.streams if r.stream not in found.named)
    public = str(mostly_good(tmp_path / "public.csv", 200, 9))
    assert audited(run, share=1, rows=60, public=public).named == found.named


def command(monkeypatch: pytest.MonkeyPatch, *words: object) -> int:
    """The exit code of the command ``shared-seed audit``."""
    monkeypatch.setattr(sys, "argv", ["shared-seed", "audit", *map(str, words)])
    try:
        cli.main()
    except SystemExit as end:
        return int(end.code or 0)
    return 0


def test_of_two_real_processes_the_one_with_random_bytes_is_named_by_the_command(
    home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    address = f"tcp://127.0.0.1:{free_ports()}"
    first = ["-m", "shared_seed", "run", str(home / "tiny.yaml"), "--listen", address, "--start-with", "2"]
    peers = []
    for number, words in enumerate((first, [HOSTILE, "join", address])):
        options = ["-o", tmp_path / str(number), "--number", number, "--progress", "json"]
        process = subprocess.Popen(
            [sys.executable, *map(str, [*words, *options])],
            stdout=subprocess.PIPE,
            text=True,
            env={**os.environ, "OMP_NUM_THREADS": "1"},
        )
        peers.append(process)
    said = [peer.communicate(timeout=300)[0] for peer in peers]
    assert [peer.returncode for peer in peers] == [0, 0], "\n".join(text[-400:] for text in said)
    assert command(monkeypatch, tmp_path / "0", "--share", 1, "--json") == NAMED
    verdicts = {r["peer"]: r["verdict"] for r in json.loads(capsys.readouterr().out)["streams"]}
    assert verdicts.pop(published(tmp_path / "1").peer.hex()) == "does not agree"
    assert list(verdicts.values()) == ["agrees"]
    assert command(monkeypatch, tmp_path / "0", "--share", 0.8, "--seed", 4) == NAMED
    text = " ".join(capsys.readouterr().out.split())
    assert f"look at {published(tmp_path / '1').peer.hex()}/0" in text
    assert "shared-seed ban KEY" in text


def test_the_command_names_nobody_in_an_honest_run(
    honest: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert command(monkeypatch, honest, "--share", 0.5, "--seed", 3, "--json") == 0
    content = json.loads(capsys.readouterr().out)
    assert content["seed"] == 3
    assert [report["audited"] for report in content["streams"]] == [10, 10, 10]
    assert {report["verdict"] for report in content["streams"]} == {"agrees"}
    found = {report["peer"] for report in content["streams"]}
    assert found == {published(honest.parent / str(n)).peer.hex() for n in range(3)}
    # Whether so few bytes go with so few other rows is chance, but not what the command then says of it.
    public = ("--public", tiny.save_rows(honest / "public.csv", 60, 9))
    code = command(monkeypatch, honest, *public, "--seed", 3, "--json")
    content = json.loads(capsys.readouterr().out)
    assert not content["assigned"]
    assert all(report["audited"] > 0 and abs(report["r"]) <= 1 for report in content["streams"])
    assert code == (NAMED if "does not agree" in {report["verdict"] for report in content["streams"]} else 0)


@pytest.mark.parametrize(
    ("together", "advice"), [(0.25, "have correlation +0.25"), (-0.1, "are not correlated with these rows")]
)
def test_a_table_of_correlations_is_whole_in_80_columns(
    together: float, advice: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    streams = [Stream(bytes([n] * 12), 0) for n in range(2)]
    verdicts = (Verdict.DISAGREES, Verdict.UNCERTAIN)
    reports = [
        Correlation(one, 1200, 240, 0, 0.65, -0.12, 0.06, -12.5, -10.1, 0, verdict)
        for one, verdict in zip(streams, verdicts, strict=True)
    ]
    cli_audit.show(
        Audit(3, 1.0, False, reports, together), Options(seed=3, public="rows.csv", rows=60), Terminal()
    )
    lines = capsys.readouterr().out.splitlines()
    assert "correlation" in lines[4].split()
    for one, verdict in zip(streams, verdicts, strict=True):
        shown = f"{one} 1,200 240 0 65% -0.12±0.06 -12.5 -10.1 {verdict.value}"
        assert shown in [" ".join(line.split()) for line in lines]
    assert advice in " ".join(lines)


def alone(path: Path, out: Path) -> Path:
    terms = recipe.load(path)
    out.mkdir(exist_ok=True)
    take_part(terms, settings_for(terms, out, number=0), Part(), False, lambda event: None)
    return out


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_both_loops_train_on_the_assigned_batches_to_the_same_bits(
    home: Path, tmp_path: Path, precision: str
) -> None:
    digests = set()
    for trainer in ("transformers", "lightning"):
        terms = {"trainer": trainer, "precision": precision, "probes_per_step": 3, "steps": 5}
        run = alone(changed(home, tmp_path / f"{trainer}.yaml", 4, **terms), tmp_path / trainer)
        (report,) = audited(run, share=1).streams
        assert isinstance(report, Agreement)
        assert (report.audited, report.agree, report.worst) == (5, 5, 0)
        contents = log.read(run / LOG_NAME)
        assert contents.digest is not None
        digests.add(contents.digest[1])
    assert len(digests) == 1


def test_a_peer_that_comes_back_takes_the_rows_of_its_new_stream_and_round(home: Path, tmp_path: Path) -> None:
    path = changed(home, tmp_path / "again.yaml", steps=4)
    run = alone(path, tmp_path / "run")
    contents = log.read(run / LOG_NAME)
    # As a crash after two rounds would have left it.
    first, second = contents.messages[:2]
    head = history.archive_of(contents).head(second.stream, 2)
    said = [Signed(first), Signed(second, sign_head(identity.load(), head))]
    cut = dataclasses.replace(contents, signed=said, digest=None)
    (run / LOG_NAME).write_bytes(log.encode(cut))
    alone(path, run)
    found = audited(run, share=1)
    assert [(r.stream.incarnation, r.messages, r.verdict) for r in found.streams] == [
        (0, 2, Verdict.AGREES),
        (1, 2, Verdict.AGREES),
    ]
    assert [report.worst for report in found.streams] == [0, 0]


def test_the_batch_of_a_byte_is_that_of_the_sessions_stream_round_and_probe(home: Path) -> None:
    terms = recipe.load(home / "tiny.yaml")
    model, tokenizer = load(terms.model)
    task = Classification(terms.task, tokenizer, model)
    features = task.encode([Example(f"{word} it was", number % 2) for number, word in enumerate(tiny.WORDS)])
    job = Job(terms, Settings(), model, task, features, lambda session, step: None)
    assigned = job.assigned
    assert assigned is not None
    assert (assigned.size, assigned.seed) == (terms.training.batch_size, terms.training.seed)
    batches = {
        (s, r, p): assigned.batch(stream(s), r, p)["input_ids"].tolist()
        for s in (1, 2)
        for r in (0, 7)
        for p in (0, 1)
    }
    assert len({json.dumps(rows) for rows in batches.values()}) == 8


def test_the_loss_of_an_assigned_batch_has_no_dropout_and_leaves_the_modes(home: Path) -> None:
    terms = recipe.load(home / "tiny.yaml")
    model = opt(dropout=0.5).train()
    model.model.decoder.layers[0].eval()
    modes = [module.training for module in model.modules()]
    task = Classification(terms.task, tiny.tokenizer(), model)
    features = task.encode([Example(f"{word} it was", number % 2) for number, word in enumerate(tiny.WORDS)])
    assigned = AssignedBatches(task, features, 4, 0)
    batch = assigned.batch(stream(1), 0, 0)
    with torch.no_grad():
        losses = {float(assigned.loss(model, batch)) for _ in range(3)}
    assert len(losses) == 1
    assert [module.training for module in model.modules()] == modes


def test_rows_of_a_peers_own_are_refused_where_the_run_assigns_them(home: Path, tmp_path: Path) -> None:
    terms = recipe.load(home / "tiny.yaml")
    for part in (Part(own=str(home / "rows.csv")), Part(number=1, of=2)):
        with pytest.raises(RecipeError, match="neither --data nor --shard"):
            take_part(terms, settings_for(terms, tmp_path), part, False, lambda event: None)


def test_every_stream_is_audited_at_its_share_and_at_least_a_few_times() -> None:
    counts = {1: 1000, 2: 50, 3: 4}
    messages = [message(w, n, 1e-3, bytes([1, 2, 3])) for w in counts for n in range(counts[w])]
    chosen = choose(messages, 0.05, 7)
    assert chosen == choose(list(reversed(messages)), 0.05, 7)
    assert chosen != choose(messages, 0.05, 8)
    assert [sum(m.stream == stream(w) for m, _ in chosen) for w in counts] == [50, LEAST, 4]
    assert len({(m.stream, m.number) for m, _ in chosen}) == len(chosen)
    assert {index for _, index in chosen} == {0, 1, 2}


def test_messages_louder_than_the_recipe_or_twice_in_a_round_break_its_terms(home: Path) -> None:
    terms = recipe.load(home / "tiny.yaml")
    rate = terms.training.base_rate

    def made(writer: int, number: int, round_: int, learning_rate: float, codes: int = 1) -> Message:
        return Message(stream(writer), number, round_, as_float32(learning_rate), bytes(codes))

    messages = [
        *(made(1, n, n, rate) for n in range(4)),
        *(made(2, n, n, rate / 3, 3) for n in range(4)),
        *(made(3, n, n, rate / 2, 3) for n in range(4)),
        *(made(4, n, n // 2, rate) for n in range(4)),
        *(made(5, n, 2 * n, 0.0) for n in range(4)),
    ]
    assert breaks(messages, terms) == {stream(1): 0, stream(2): 0, stream(3): 4, stream(4): 2, stream(5): 0}


def test_messages_louder_than_their_own_gradients_allow_break_a_promise(home: Path, tmp_path: Path) -> None:
    terms = recipe.load(changed(home, tmp_path / "found.yaml", 4, learning_rate="auto"))
    assert terms.promise is not None
    codes = [codec.encode(gradient) for gradient in (4.0, -8.0, 2.0, 16.0)]
    rate = Rate(terms.promise, terms.training.epsilon, terms.training.scale_exponent)
    honest, loud = [], []
    for number, code in enumerate(codes):
        rate.note([code])
        most = rate.most * 4 ** (number / STEPS)
        honest.append(Message(stream(1), number, number, as_float32(most), bytes([code])))
        loud.append(Message(stream(2), number, number, as_float32((number + 0.5) * most), bytes([code])))
    assert breaks([*honest, *loud], terms) == {stream(1): 0, stream(2): 2}


def test_what_cannot_be_audited_is_said(honest: Path) -> None:
    contents = log.read(honest / LOG_NAME)
    with pytest.raises(LogError, match="without a recipe"):
        audit(
            dataclasses.replace(contents, manifest=contents.manifest.model_copy(update={"recipe": None})),
            Options(),
        )
    with pytest.raises(LogError, match="no messages"):
        audit(dataclasses.replace(contents, signed=[]), Options())
    for wrong in ({"share": 0.0}, {"share": 1.5}, {"tolerance": 0.0}, {"rows": 0}):
        with pytest.raises(RecipeError, match="expected"):
            Options(**wrong)  # type: ignore[arg-type]


def test_abstentions_are_not_computed_again(home: Path, tmp_path: Path) -> None:
    run = alone(changed(home, tmp_path / "some.yaml", steps=3), tmp_path / "run")
    contents = log.read(run / LOG_NAME)
    silent = dataclasses.replace(contents.messages[-1], codes=bytes([codec.ABSTAIN]))
    found = audit(dataclasses.replace(contents, signed=[*contents.signed[:-1], Signed(silent)]), Options(share=1))
    (report,) = found.streams
    assert isinstance(report, Agreement)
    assert (report.audited, report.abstained, report.verdict) == (2, 1, Verdict.AGREES)
