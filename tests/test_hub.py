"""Runs published to a Hub on this machine, by the real client over real sockets, and fetched again."""

from __future__ import annotations

import dataclasses
import hashlib
import shutil
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

import tiny
from hub_client import TOKENS, child, contents_of, fetch, push
from hub_server import HubServer
from shared_seed import log
from shared_seed.errors import HubError
from shared_seed.folder import LOG_NAME
from shared_seed.hub import Place
from test_publication import PUBLIC, plant_private_files

Call = Callable[..., tuple[int, str, str]]


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny.run(tiny.recipe(tmp_path_factory.mktemp("hub"), steps=4))


@pytest.fixture
def folder(finished: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(finished, tmp_path / "run"))


@pytest.fixture
def hub(tmp_path: Path) -> Iterator[HubServer]:
    with HubServer(tmp_path / "served", TOKENS) as server:
        yield server


def test_a_push_sends_what_is_listed_and_its_log_replays_to_the_digest(
    hub: HubServer, folder: Path, tmp_path: Path, call: Call
) -> None:
    plant_private_files(folder)
    code, out, err = push(hub, tmp_path, folder, "me/tiny")
    assert code == 0, err
    assert err == ""
    assert f"published {hub.endpoint}/me/tiny" in out
    fetched = fetch(hub, tmp_path, "me/tiny")
    found = contents_of(fetched)
    assert set(found) == PUBLIC
    for name in PUBLIC - {"README.md", "manifest.json", "recipe.yaml"}:
        assert found[name] == (folder / name).read_bytes()
    for name, content in found.items():
        assert f"{len(content):>13,}  {name}" in out
    assert f"{sum(map(len, found.values())):,}  bytes in {len(PUBLIC)} files" in out
    assert b"shared-seed replay me/tiny -o model" in found["README.md"]
    code, out, err = call("replay", fetched)
    assert code == 0, err
    assert log.read(folder / LOG_NAME).digest[1].hex() in out  # type: ignore[index]
    assert "identical to the digest that the run stated" in out
    code, out, err = call("card", fetched, "-o", tmp_path / "again.md")
    assert code == 0, err
    assert hub.sent("validate-yaml") == 2


def test_a_second_push_sends_nothing_again(hub: HubServer, folder: Path, tmp_path: Path) -> None:
    assert push(hub, tmp_path, folder, "me/tiny", "--message", "first")[0] == 0
    stored, committed = hub.sent("storage"), hub.sent("/commit/")
    assert stored == 2  # The log and the picture.
    assert push(hub, tmp_path, folder, "me/tiny", "--message", "second")[0] == 0
    assert (hub.sent("storage"), hub.sent("/commit/")) == (stored, committed)
    assert hub.store.history("me/tiny") == ["first", "initial commit"]
    (folder / "README.md").write_text((folder / "README.md").read_text() + "\nMore.\n")
    assert push(hub, tmp_path, folder, "me/tiny", "--message", "third")[0] == 0
    assert hub.store.history("me/tiny")[0] == "third"
    assert hub.sent("storage") == stored


def test_a_push_that_was_cut_off_goes_on_and_leaves_no_half_of_it(
    hub: HubServer, folder: Path, tmp_path: Path
) -> None:
    hub.breaking.add("api/models/me/tiny/commit")
    code, _, err = push(hub, tmp_path, folder, "me/tiny")
    assert code == 1
    assert "did not answer, or not to the end" in err
    assert len(err.strip().splitlines()) == 1
    assert hub.store.files("me/tiny", "main")[1] == {}
    stored = hub.sent("storage")
    assert stored == 2
    code, _, err = push(hub, tmp_path, folder, "me/tiny")
    assert code == 0, err
    assert hub.sent("storage") == stored
    assert set(hub.store.files("me/tiny", "main")[1]) == PUBLIC


def test_weights_are_sent_whole_and_load_from_what_was_fetched(
    hub: HubServer, folder: Path, tmp_path: Path, call: Call
) -> None:
    from transformers import AutoModelForCausalLM

    code, out, err = push(hub, tmp_path, folder, "me/tiny", "--weights")
    assert code == 0, err
    fetched = fetch(hub, tmp_path, "me/tiny")
    found = contents_of(fetched)
    assert PUBLIC | {"model.safetensors", "config.json", "tokenizer.json"} <= set(found)
    assert call("replay", folder, "-o", tmp_path / "model")[0] == 0
    assert found["model.safetensors"] == (tmp_path / "model" / "model.safetensors").read_bytes()
    assert AutoModelForCausalLM.from_pretrained(fetched).config.hidden_size == 16
    assert b"AutoModelForCausalLM.from_pretrained('me/tiny')" in found["README.md"]
    assert f"{len(found['model.safetensors']):>13,}  model.safetensors" in out
    machine = [
        name for name, content in found.items() if b"/tmp" in content and name not in ("README.md", LOG_NAME)
    ]
    assert set(machine) <= {"recipe.yaml", "manifest.json", "report.html"}  # the recipe names them


def test_an_adapter_is_sent_without_this_machines_paths_and_with_our_card(hub: HubServer, tmp_path: Path) -> None:
    from peft import PeftModel
    from transformers import AutoModelForCausalLM

    home = tmp_path / "lora"
    home.mkdir()
    path = tiny.recipe(home, steps=2)
    path.write_text(path.read_text() + "lora: {rank: 2, targets: [q_proj, v_proj]}\n")
    run = tiny.run(path)
    assert "use --adapter" in push(hub, tmp_path, run, "me/adapter", "--weights")[2]
    code, _, err = push(hub, tmp_path, run, "me/adapter", "--adapter")
    assert code == 0, err
    fetched = fetch(hub, tmp_path, "me/adapter")
    found = contents_of(fetched)
    assert set(found) == PUBLIC | {"adapter_model.safetensors", "adapter_config.json"}
    assert b"## How it was made" in found["README.md"]
    assert b"library_name: peft" in found["README.md"]
    base = AutoModelForCausalLM.from_pretrained(home / "model")
    assert PeftModel.from_pretrained(base, fetched).peft_config["default"].r == 2


def test_a_private_repository_is_for_its_owner(hub: HubServer, folder: Path, tmp_path: Path) -> None:
    assert push(hub, tmp_path, folder, "tiny", "--private")[0] == 0
    assert set(contents_of(fetch(hub, tmp_path, "me/tiny"))) == PUBLIC
    for token in (None, "hf_you"):
        code, _, err = child(
            hub, tmp_path, ["-c", "import huggingface_hub as h; h.HfApi().model_info('me/tiny')"], token
        )
        assert code == 1
        assert "RepositoryNotFoundError" in err


def test_a_branch_is_made_and_main_left_alone(hub: HubServer, folder: Path, tmp_path: Path) -> None:
    for message in ("first", "second"):
        (folder / "metrics.jsonl").write_text(f'"{message}"\n')
        code, _, err = push(hub, tmp_path, folder, "me/tiny", "--revision", "runs/1", "--message", message)
        assert code == 0, err
    assert set(contents_of(fetch(hub, tmp_path, "me/tiny", revision="runs/1"))) == PUBLIC
    assert hub.store.history("me/tiny", "runs/1") == ["second", "first", "initial commit"]
    assert hub.store.files("me/tiny", "main")[1] == {}


@pytest.mark.parametrize(
    ("words", "token", "variables", "said"),
    [
        (["me/tiny"], None, {}, "there is no token for the Hub"),
        (["tiny"], None, {}, "there is no token for the Hub"),
        (["me/tiny"], "hf_unknown", {}, "the Hub does not know the token"),
        (["me/tiny"], "hf_read", {}, "the token may not write to me/tiny"),
        (["you/tiny"], "hf_me", {}, "the token may not write to you/tiny"),
        (["me/tiny"], "hf_me", {"HF_HUB_OFFLINE": "1"}, "HF_HUB_OFFLINE is set"),
        (["me/tiny"], "hf_me", {"HF_ENDPOINT": "http://127.0.0.1:9"}, "did not answer"),
        (["a/b/c"], "hf_me", {}, "is not the name of a repository"),
        (["me/x--y"], "hf_me", {}, "is not the name of a repository"),
        (["me/tiny", "--weights", "--adapter"], "hf_me", {}, "exclude each other"),
        (["me/tiny", "--adapter"], "hf_me", {}, "use --weights"),
    ],
)
def test_what_goes_wrong_is_one_message_and_nothing_is_made(
    hub: HubServer,
    folder: Path,
    tmp_path: Path,
    words: list[str],
    token: str | None,
    variables: dict[str, str],
    said: str,
) -> None:
    code, _, err = push(hub, tmp_path, folder, *words, token=token, **variables)
    assert code == 1
    assert said in err
    assert err.startswith("error: ")
    assert len(err.strip().splitlines()) == 1
    assert not (hub.store.root / "repos").exists()


def test_a_repository_that_is_there_is_not_written_with_a_token_that_may_only_read(
    hub: HubServer, folder: Path, tmp_path: Path
) -> None:
    assert push(hub, tmp_path, folder, "me/tiny")[0] == 0
    before = hub.store.files("me/tiny", "main")
    (folder / "metrics.jsonl").write_text("{}\n")
    for token in ("hf_read", "hf_you"):
        code, _, err = push(hub, tmp_path, folder, "me/tiny", token=token)
        assert code == 1
        assert "the token may not write to me/tiny" in err
    assert hub.store.files("me/tiny", "main") == before


def test_metadata_that_the_hub_refuses_are_named_before_anything_is_made(
    hub: HubServer, folder: Path, tmp_path: Path
) -> None:
    path = folder / "README.md"
    path.write_text(path.read_text().replace("library_name:", "license: made-up\nlibrary_name:", 1))
    code, _, err = push(hub, tmp_path, folder, "me/tiny")
    assert code == 1
    assert "does not take the card's metadata" in err
    assert "license" in err
    assert not (hub.store.root / "repos").exists()


def test_a_run_that_has_not_ended_is_published_only_if_asked_and_replays_as_far(
    hub: HubServer, folder: Path, tmp_path: Path, call: Call
) -> None:
    contents = log.read(folder / LOG_NAME)
    (folder / LOG_NAME).write_bytes(log.encode(dataclasses.replace(contents, digest=None)))
    code, _, err = push(hub, tmp_path, folder, "me/tiny")
    assert code == 1
    assert "--unfinished" in err
    assert call("card", folder)[0] == 0
    code, _, err = push(hub, tmp_path, folder, "me/tiny", "--unfinished")
    assert code == 0, err
    fetched = fetch(hub, tmp_path, "me/tiny")
    assert b"**The run has not finished**" in (fetched / "README.md").read_bytes()
    assert call("replay", fetched)[0] == 1
    code, out, err = call("replay", fetched, "--unfinished")
    assert code == 0, err
    assert contents.digest is not None
    assert contents.digest[1].hex() in out


def test_a_dry_run_says_what_would_go_and_asks_nobody(hub: HubServer, folder: Path, tmp_path: Path) -> None:
    code, out, err = push(hub, tmp_path, folder, "me/tiny", "--dry-run", "--weights", token=None)
    assert code == 0, err
    assert f"{(folder / LOG_NAME).stat().st_size:>13,}  {LOG_NAME}" in out
    assert "nothing was sent; the weights would come from a replay" in out
    assert "note      readers will see" in out
    assert hub.requests == []


def test_a_folder_takes_the_same_files_again_and_again(folder: Path, tmp_path: Path, call: Call) -> None:
    private = plant_private_files(folder)
    for place in ("./published", f"file:{tmp_path}/published", f"file://{tmp_path}/published"):
        code, _, err = call("push", folder, place)
        assert code == 0, err
        found = contents_of(tmp_path / "published")
        assert set(found) == PUBLIC
        assert not [word for word in private if word.encode() in b"".join(found.values())]
    assert b"shared-seed replay USER/REPOSITORY" in found["README.md"]
    assert call("replay", tmp_path / "published")[0] == 0
    (tmp_path / "published" / LOG_NAME).write_bytes(b"")
    assert call("push", folder, "./published", "--weights")[0] == 0
    assert (tmp_path / "published" / "model.safetensors").exists()
    assert call("replay", tmp_path / "published")[0] == 0
    code, _, err = call("push", folder, str(folder / LOG_NAME))
    assert code == 1
    assert "cannot write to" in err


def test_a_card_that_speaks_of_another_run_is_pointed_out(folder: Path, call: Call) -> None:
    assert "does not state the run's digest" not in call("push", folder, "./a", "--dry-run")[1]
    (folder / "README.md").write_text("# Mine\n")
    assert "does not state the run's digest" in call("push", folder, "./a", "--dry-run")[1]


def test_places_are_told_apart_by_how_they_are_written(tmp_path: Path) -> None:
    assert Place.of("me/x").folder is None
    assert Place.of("./me/x").folder == Path("me/x")
    assert Place.of(str(tmp_path)).folder == tmp_path
    assert Place.of("file:///a%20b").folder == Path("/a b")
    assert Place.of("~/x").folder == Path("~/x").expanduser()
    with pytest.raises(HubError, match="expected USER/NAME"):
        Place.of("me/x\n; rm -rf")


# The server itself


def asked(url: str, method: str, content: bytes, **headers: str) -> int:
    request = urllib.request.Request(url, content, headers, method=method)
    try:
        with urllib.request.urlopen(request, timeout=20) as answer:
            return int(answer.status)
    except urllib.error.HTTPError as error:
        with error:
            return error.code


def test_the_server_takes_no_blob_that_is_not_what_it_is_called(hub: HubServer) -> None:
    content = b"\0weights"
    oid, size = hashlib.sha256(content).hexdigest(), len(content)
    signed = f"{hub.endpoint}/storage/{oid}?size={size}&sign={hub.sign('put', oid, size)}"
    assert asked(f"{hub.endpoint}/storage/{oid}?size={size}&sign=00", "PUT", content) == 403
    assert asked(signed, "PUT", content, Authorization="Bearer hf_me") == 400
    assert asked(signed, "PUT", b"\0weightz") == 422
    assert asked(signed, "PUT", content[:-1]) == 422
    assert not hub.store.blob(oid).exists()
    assert asked(signed, "PUT", content) == 200
    assert hub.store.blob(oid).read_bytes() == content


def test_the_server_commits_nothing_that_was_not_uploaded_or_is_out_of_place(hub: HubServer) -> None:
    hub.store.create(TOKENS["hf_me"], "me", "x", False)
    url = f"{hub.endpoint}/api/models/me/x/commit/main"
    ndjson = {"Content-Type": "application/x-ndjson", "Authorization": "Bearer hf_me"}
    header = b'{"key": "header", "value": {"summary": "x"}}\n'
    missing = b'{"key": "lfsFile", "value": {"path": "a.bin", "algo": "sha256", "oid": "%s", "size": 3}}\n'
    binary = b'{"key": "file", "value": {"path": "a", "encoding": "base64", "content": "AAAA"}}\n'
    outside = b'{"key": "file", "value": {"path": "../a", "encoding": "base64", "content": "YQ=="}}\n'
    good = b'{"key": "file", "value": {"path": "a", "encoding": "base64", "content": "YQ=="}}\n'
    for body in (b"", header, good, header + missing % (b"0" * 64), header + binary, header + outside):
        assert asked(url, "POST", body, **ndjson) == 400
    assert asked(url, "POST", header + good, **(ndjson | {"Authorization": "Bearer hf_read"})) == 403
    assert asked(url, "POST", header + good, **{"Content-Type": "application/x-ndjson"}) == 401
    assert hub.store.history("me/x") == ["initial commit"]
    assert asked(url, "POST", header + good, **ndjson) == 200
    assert hub.store.history("me/x") == ["x", "initial commit"]
