"""Where a gradient log is: a file, a run folder, or a repository on the Hugging Face Hub."""

from __future__ import annotations

import re
from pathlib import Path

from shared_seed import log
from shared_seed.errors import LogError
from shared_seed.folder import LOG_NAME
from shared_seed.log import Contents

SUFFIX = ".sslog"
"""How a log's file name ends."""

HELP = "A gradient log, a run folder, or a Hub repository user/run[@revision]."
"""What commands say of a log's name."""

_REPOSITORY = re.compile(r"(?P<name>[A-Za-z0-9][\w.-]*/[\w.-]+)(?:@(?P<revision>[^@\s]+))?")


def find(source: str | Path) -> Path:
    """The log's file: here, or downloaded into the Hub's cache.

    Args:
        source: a file; a folder with ``gradients.sslog`` in it; or ``user/run`` on the Hub, where no path is
            called so, with ``@REVISION`` behind it if not its main branch.

    Raises:
        LogError: there is none; says where it was looked for.
    """
    path = Path(source).expanduser()
    if path.exists():
        return path / LOG_NAME if path.is_dir() else path
    repository = _REPOSITORY.fullmatch(str(source))
    if repository is None or str(source).endswith(SUFFIX):
        raise LogError(
            f"there is no file or folder {source}; expected a gradient log, a run folder, or a repository on the "
            "Hugging Face Hub as user/run or user/run@revision"
        )
    return _download(repository["name"], repository["revision"])


def read(source: str | Path) -> Contents:
    """What the log there holds.

    Raises:
        LogError: there is none, or it cannot be used; see :func:`shared_seed.log.read`.
    """
    return log.read(find(source))


def _download(name: str, revision: str | None) -> Path:
    # Late: most logs are on this machine.
    from huggingface_hub import hf_hub_download
    from huggingface_hub.errors import EntryNotFoundError, HfHubHTTPError, HFValidationError

    try:
        return Path(hf_hub_download(name, LOG_NAME, revision=revision))
    except (EntryNotFoundError, HfHubHTTPError, HFValidationError, OSError) as error:
        reason = (str(error).strip() or type(error).__name__).splitlines()[0]
        raise LogError(
            f"there is no file or folder {name} here, and the Hugging Face Hub gives no {LOG_NAME} of {name!r}"
            f"{f' at {revision!r}' if revision else ''}: {reason}"
        ) from error
