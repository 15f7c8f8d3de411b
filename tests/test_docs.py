"""Every code block of README and docs runs, on a tiny model in place of the recipes' ones; every command that the
text names is there.
"""

from __future__ import annotations

import configparser
import os
import re
import shlex
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from typer.main import get_command

import documents
import models
import tiny
import trainers
from documents import PAGES, ROOT, Block
from hub_client import TOKENS
from hub_server import HubServer
from shared_seed import cli
from shared_seed.folder import LOG_NAME
from shared_seed.swarm.zmq import free_ports

NOT_RUN = ("make", ".", "cd", "pip", "hf", "python")
"""First words of lines that set a machine up, as CI does before, or measure, as test_benchmarks.py does."""

SHELL = sorted({block.page for block in documents.of("sh")})


def tiny_recipe(folder: Path) -> None:
    """The quickstart's recipe with a tiny model and rows, and a run of it that has ended."""
    (folder / "tiny").mkdir()
    path = tiny.recipe(folder / "tiny", steps=40)
    (folder / "recipes").mkdir()
    recipe = yaml.safe_load(path.read_text())
    recipe["training"]["learning_rate"] = 1e-3
    (folder / "recipes" / "quickstart.yaml").write_text(yaml.safe_dump(recipe))
    tiny.save_rows(folder / "my.csv", 30, 1)


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("docs")
    tiny_recipe(folder)
    subprocess.run(words("shared-seed run recipes/quickstart.yaml"), cwd=folder, check=True, timeout=200)
    (folder / "docs" / "replay").mkdir(parents=True)
    shutil.copyfile(folder / "runs" / "quickstart" / LOG_NAME, folder / "docs" / "replay" / "quickstart.sslog")
    return folder


def words(command: str) -> list[str]:
    """A command as it runs here."""
    program, *rest = shlex.split(command, comments=True)
    return [sys.executable, "-m", "shared_seed", *rest] if program.endswith("shared-seed") else [program, *rest]


class Shell:
    """Runs the commands of one page in order; those that wait for others run beside the next."""

    def __init__(self, folder: Path, commands: list[str], environment: dict[str, str]) -> None:
        self._place: dict[str, Any] = {"cwd": folder, "env": os.environ | environment | {"PYTHONUNBUFFERED": "1"}}
        self._joins = sum(" join " in command for command in commands)
        self._beside: list[subprocess.Popen[bytes]] = []
        self._relays: list[subprocess.Popen[bytes]] = []
        self._port = str(free_ports())

    def run(self, command: str) -> None:
        command = command.replace("5555", self._port)
        if " relay " in command:
            self._relays.append(subprocess.Popen(words(command), **self._place, stderr=subprocess.PIPE))
            return
        for relay in self._relays if " join " in command else ():
            assert relay.stderr is not None
            assert any(line.startswith(b"run ") for line in relay.stderr), "a relay says which run it has got"
        if (" --listen" in command or " --via" in command) and "--start-with" not in command:
            command += f" --start-with {1 + self._joins}"  # The run must not be over before the others come.
        if " --listen" in command or " --via" in command or " join " in command:
            self._beside.append(subprocess.Popen(words(command), **self._place))
            return
        self.finish()
        subprocess.run(words(command), **self._place, check=True, timeout=200)

    def finish(self) -> None:
        assert [process.wait(timeout=250) for process in self._beside] == [0] * len(self._beside)
        self._beside.clear()

    def kill(self) -> None:
        for process in (*self._beside, *self._relays):
            process.kill()
            process.communicate()


@pytest.fixture
def beside() -> Iterator[list[Shell]]:
    shells: list[Shell] = []
    yield shells
    for shell in shells:
        shell.kill()


@pytest.fixture
def hub(tmp_path: Path) -> Iterator[dict[str, str]]:
    """What makes a local server stand in for the Hub, for a user called me."""
    with HubServer(tmp_path / "served", TOKENS) as server:
        yield server.environment("hf_me", tmp_path / "cache")


@pytest.mark.parametrize("page", SHELL)
def test_the_commands_of_a_page_run(
    home: Path, tmp_path: Path, page: str, beside: list[Shell], hub: dict[str, str]
) -> None:
    texts = [block.text for block in documents.of("sh") if block.page == page]
    commands = [line for text in texts for line in text.splitlines() if line and not line.startswith("#")]
    ours = [line for line in commands if line.split()[0] not in NOT_RUN]
    shell = Shell(shutil.copytree(home, tmp_path / "home"), ours, hub)
    beside.append(shell)
    for line in ours:
        shell.run(line)
    shell.finish()
    for line in commands:
        if line.startswith("make "):
            subprocess.run(["make", "--dry-run", *line.split()[1:]], cwd=ROOT, check=True, capture_output=True)
        if line.startswith("python "):
            name, options = re.match(r"python (benchmarks/\w+\.py)([^#]*)", line).groups()
            told = subprocess.run(
                [sys.executable, name, "--help"], cwd=ROOT, check=True, capture_output=True, text=True
            )
            assert all(option in told.stdout for option in re.findall(r"--[a-z-]+", options)), line


@pytest.mark.parametrize("block", documents.of("python"), ids=str)
def test_python_runs(home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, block: Block) -> None:
    monkeypatch.chdir(shutil.copytree(home, tmp_path / "home"))
    exec(compile(block.text, str(block), "exec"), {})


def a_trainer_script(folder: Path) -> dict[str, Any]:
    from transformers import Trainer, TrainingArguments

    from shared_seed import SharedSeedCallback

    args = TrainingArguments(folder, max_steps=1, report_to=[], save_strategy="no", use_cpu=True)
    data = trainers.rows(8)
    return {
        "Trainer": Trainer,
        "SharedSeedCallback": SharedSeedCallback,
        "model": models.opt(),
        "args": args,
        "data": data,
    }


def a_lightning_script(folder: Path) -> dict[str, Any]:
    from lightning.pytorch import Trainer

    return {"Trainer": Trainer}


@pytest.mark.parametrize("block", documents.of("diff"), ids=str)
def test_a_plugin_is_one_changed_line(tmp_path: Path, block: Block) -> None:
    sides = {"-": [], "+": []}
    for line in block.text.splitlines():
        sides[line[0]].append(line[2:])
    assert [len(lines) for lines in sides.values()] == [1, 1]
    script = a_trainer_script if "model=" in block.text else a_lightning_script
    for (line,) in sides.values():
        names = script(tmp_path)
        exec(compile(line, str(block), "exec"), names)
    trainer = names["trainer"]
    if script is a_trainer_script:
        before = models.bits(trainer.model)
        trainer.train()
        assert models.bits(trainer.model) != before
        assert all(p.grad is None for p in trainer.model.parameters())
    else:
        assert type(trainer.strategy).__name__ == "SharedSeedStrategy"
    assert torch.is_grad_enabled()


@pytest.mark.parametrize("block", [*documents.of("yaml"), *documents.of("ini")], ids=str)
def test_settings_can_be_read(block: Block) -> None:
    if block.language == "yaml":
        assert isinstance(yaml.safe_load(block.text), dict)
    else:
        # As systemd has them, in which a percent sign and a second value of a key are allowed.
        parser = configparser.ConfigParser(interpolation=None, strict=False)
        parser.read_string(block.text)
        assert parser.sections()


def test_blocks_are_fenced_and_name_a_language_that_is_run_read_or_text() -> None:
    found = {block.language for block in documents.blocks()}
    assert found == {"sh", "python", "diff", "text", "yaml", "ini"}
    for page in PAGES:
        assert not re.search(r"(?:\A|\n)\n {4}\S", documents.prose(page)), (
            f"{page.name} has a block without a fence"
        )


@pytest.mark.parametrize("page", PAGES, ids=lambda path: path.name)
def test_commands_and_files_that_a_page_names_are_there(page: Path) -> None:
    known: Any = get_command(cli.app)
    for name, rest in re.findall(r"`(?:\.venv/bin/)?shared-seed ([a-z]+)([^`]*)`", documents.prose(page)):
        assert name in known.commands, f"{page.name} names the command {name}"
        options = {option for parameter in known.commands[name].params for option in parameter.opts}
        for option in re.findall(r"(?<![\w-])(--?[a-z][a-z-]*)", rest):
            assert option in options, f"{page.name}: shared-seed {name} has no option {option}"
    files = r"`(?:python )?((?:benchmarks|src|tests|docs|recipes|examples)/[a-z0-9_./-]+\.\w+)"
    for path in re.findall(files, page.read_text()):
        assert (ROOT / path).exists(), f"{page.name} names {path}"


def test_the_site_builds_without_a_broken_link(tmp_path: Path) -> None:
    environment = {**os.environ, "NO_MKDOCS_2_WARNING": "1"}
    words = [sys.executable, "-m", "mkdocs", "build", "--strict", "--quiet", "--site-dir", str(tmp_path / "site")]
    done = subprocess.run(words, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=200)
    assert (done.returncode, done.stderr) == (0, "")
    pages = {path.stem for path in (ROOT / "docs").glob("*.md")} - {"index"}
    assert {path.name for path in (tmp_path / "site").iterdir() if path.is_dir()} >= pages
