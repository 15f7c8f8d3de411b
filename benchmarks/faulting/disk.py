"""What disks do: lose the end of a file, get lost, get full."""

from __future__ import annotations

import resource
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from faulting import ours
from shared_seed import log

PAGE = 4096


def tear(path: Path, amount: int, zeros: bool) -> list[tuple[str, int, str]]:
    """Cut off the last bytes of a log, at most those after its header.

    With ``zeros``, the file keeps its length, as file systems have it that write lengths before contents.

    Returns:
        The messages that the log no longer has: stream in hex, number, digest.
    """
    before = log.read(path)
    size = path.stat().st_size
    kept = max(ours.header_size(before), size - amount)
    with path.open("r+b") as file:
        file.truncate(kept)
        if zeros:
            file.truncate(size)
    after = log.read(path)
    lost = before.messages[len(after.messages) :]
    return [(m.stream.to_bytes().hex(), m.number, ours.message_digest(m)) for m in lost]


class SmallDisk:
    """A disk with little room mounted in place of a folder, with what the folder held; needs to be root."""

    def __init__(self, folder: Path, pages: int) -> None:
        """Mount it; ``pages`` of 4096 bytes are left, and what the files leave of their last ones."""
        self.folder = folder
        self.aside = folder.with_name(folder.name + ".aside")
        files = list(folder.iterdir()) if folder.exists() else []
        pages += sum(-(-file.stat().st_size // PAGE) for file in files)
        folder.mkdir(exist_ok=True)
        folder.rename(self.aside)
        folder.mkdir()
        subprocess.run(
            ["mount", "-t", "tmpfs", "-o", f"size={pages * PAGE}", "tmpfs", str(folder)],
            check=True,
            capture_output=True,
        )
        _copy(self.aside, folder)

    def grow(self) -> None:
        """Put what is there now back on the disk with room; nobody may have files open there."""
        shutil.rmtree(self.aside)
        self.aside.mkdir()
        _copy(self.folder, self.aside)
        subprocess.run(["umount", str(self.folder)], check=True, capture_output=True)
        self.folder.rmdir()
        self.aside.rename(self.folder)

    @staticmethod
    def possible() -> bool:
        """Whether this process may mount disks."""
        with tempfile.TemporaryDirectory() as folder:
            try:
                SmallDisk(Path(folder) / "trial", 1).grow()
            except (subprocess.CalledProcessError, FileNotFoundError):
                return False
        return True


def _copy(source: Path, target: Path) -> None:
    for file in source.iterdir():
        shutil.copyfile(file, target / file.name)


@contextmanager
def files_of_at_most(size: int) -> Iterator[None]:
    """As on a full disk: writing beyond ``size`` fails in any file, so pytest must not report meanwhile."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
