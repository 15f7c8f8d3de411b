"""To the Hugging Face Hub, or to a folder in its place."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import unquote, urlparse

from huggingface_hub import CommitOperationAdd, HfApi, ModelCard
from huggingface_hub.errors import (
    HfHubHTTPError,
    HFValidationError,
    LocalTokenNotFoundError,
    OfflineModeIsEnabled,
    RepositoryNotFoundError,
    RevisionNotFoundError,
)
from huggingface_hub.errors import HTTPError as AnyHTTPError  # type: ignore[attr-defined]
from huggingface_hub.utils import (  # type: ignore[attr-defined]
    are_progress_bars_disabled,
    disable_progress_bars,
    enable_progress_bars,
    validate_repo_id,
)

from shared_seed import card
from shared_seed.errors import CardError, HubError
from shared_seed.markdown import plain

Files = Mapping[str, bytes | Path]

FILE = "file:"
"""What a folder's URL begins with."""


@dataclass(frozen=True)
class Place:
    """A repository on the Hub, or a folder.

    ``revision`` is the branch that is written, made if it is not there, and ``private`` whether a repository that
    is not there is made a private one; neither means anything to a folder.
    """

    name: str
    folder: Path | None = None
    revision: str | None = None
    private: bool = False

    @classmethod
    def of(cls, text: str, revision: str | None = None, private: bool = False) -> Place:
        """What ``USER/NAME``, ``NAME``, ``./folder`` or ``file:folder`` means.

        Raises:
            HubError: it is no such name.
        """
        if text.startswith(FILE):
            path = unquote(urlparse(text).path)
            return cls(Path(path).name, Path(path))
        if text in (".", "..", "~") or text.startswith(("./", "../", "/", "~/")):
            return cls(Path(text).name, Path(text).expanduser())
        try:
            validate_repo_id(text)
        except HFValidationError as error:
            raise HubError(
                f"{plain(text)!r} is not the name of a repository: {plain(error)}; expected USER/NAME, "
                "or a folder such as ./published"
            ) from error
        return cls(text, None, revision, private)


def push(files: Files, place: Place, message: str) -> str:
    """Send files in one commit; what is there already is not sent again.

    Args:
        files: bytes or paths by name, a card among them.
        place: where to.
        message: of the commit.

    Returns:
        Where they are now: a URL, or a folder.

    Raises:
        CardError: the Hub does not take the card's metadata; nothing was sent.
        HubError: says why, and what to do; the same command goes on from there.
    """
    if place.folder is not None:
        return _put(files, place.folder)
    api = HfApi()
    large = any(isinstance(content, Path) for content in files.values())
    with _explained(place), _bars(large):
        api.whoami()
        _validate(files[card.NAME])
        url = api.create_repo(place.name, private=place.private or None, exist_ok=True)
        if place.revision is not None:
            api.create_branch(url.repo_id, branch=place.revision, exist_ok=True)
        operations = [CommitOperationAdd(path_in_repo=name, path_or_fileobj=f) for name, f in files.items()]
        api.create_commit(url.repo_id, operations, commit_message=message, revision=place.revision)
    return str(url)


def full_name(place: Place) -> str:
    """The name of a repository with its user's, who is asked for at the Hub where it is left out.

    Raises:
        HubError: the Hub does not know the user.
    """
    if place.folder is not None or "/" in place.name:
        return place.name
    with _explained(place):
        return f"{HfApi().whoami()['name']}/{place.name}"


def _validate(content: bytes | Path) -> None:
    """Let the Hub check a card, before anything is made there."""
    text = (content if isinstance(content, bytes) else content.read_bytes()).decode()
    try:
        ModelCard(text).validate()
    except ValueError as error:
        raise CardError(
            f"the Hub does not take the card's metadata: {plain(error)}; nothing was sent; "
            f"correct it in {card.NAME}"
        ) from error


def _put(files: Files, folder: Path) -> str:
    try:
        for name, content in files.items():
            path = folder / name
            path.parent.mkdir(parents=True, exist_ok=True)
            temporary = path.with_name(path.name + ".new")
            temporary.write_bytes(content if isinstance(content, bytes) else content.read_bytes())
            temporary.replace(path)
    except OSError as error:
        raise HubError(f"cannot write to {folder}: {error.strerror}; choose another folder") from error
    return str(folder)


@contextmanager
def _bars(shown: bool) -> Iterator[None]:
    """Show the client's progress bars, if they are wanted at all."""
    if shown or are_progress_bars_disabled():
        yield
        return
    disable_progress_bars()
    try:
        yield
    finally:
        enable_progress_bars()


@contextmanager
def _explained(place: Place) -> Iterator[None]:
    """Say what the Hub's errors mean, and what to do."""
    try:
        yield
    except OfflineModeIsEnabled as error:
        raise HubError(
            "the Hub is not asked, since HF_HUB_OFFLINE is set; unset it, or give a folder such as ./published"
        ) from error
    except LocalTokenNotFoundError as error:
        raise HubError(
            "there is no token for the Hub; make one that may write at https://huggingface.co/settings/tokens, "
            "then `hf auth login`, or set HF_TOKEN"
        ) from error
    except HfHubHTTPError as error:
        raise HubError(_reason(error, place)) from error
    except (AnyHTTPError, OSError) as error:
        raise HubError(
            f"the Hub did not answer, or not to the end: {plain(error) or type(error).__name__}; "
            "check the network and HF_ENDPOINT; the same command goes on, and sends no large file twice"
        ) from error
    except (RuntimeError, ValueError) as error:
        raise HubError(f"the Hub did not take it: {plain(error)}; the same command goes on") from error


def _reason(error: HfHubHTTPError, place: Place) -> str:
    status = error.response.status_code
    said = plain(error.server_message or "")
    where = place.name + (f", branch {place.revision}" if place.revision else "")
    if isinstance(error, RevisionNotFoundError):
        return f"there is no branch {place.revision!r} of {place.name}; choose another --revision"
    if status == 403:
        return (
            f"the token may not write to {where} ({said}); use one with write access to it, "
            "or a name of your own, USER/NAME"
        )
    if isinstance(error, RepositoryNotFoundError) or status == 404:
        return f"there is no {where}, or the token may not see it; check the name, and whose token it is"
    if status == 401:
        return "the Hub does not know the token; get another with `hf auth login`, or set HF_TOKEN to it"
    if status == 429:
        return "the Hub asks for patience: too many requests; try again later, with the same command"
    return f"the Hub answers {status} for {where}: {said or plain(error)}; the same command tries again"
