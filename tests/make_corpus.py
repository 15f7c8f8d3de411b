"""Makes tests/corpus, hostile frames and files, the same bytes every time: ``python tests/make_corpus.py``.

test_fuzz.py checks that what is on disk is what this makes, and that every entry does no harm.
"""

from __future__ import annotations

import sys
from pathlib import Path

HERE = Path(__file__).parent
CORPUS = HERE / "corpus"

sys.path[:0] = [path for path in (str(HERE), str(HERE.parent / "benchmarks")) if path not in sys.path]

from hostile import files, frames, manifests  # noqa: E402
from hostile.entry import Entry  # noqa: E402

ENTRIES: list[Entry] = [*frames.entries(), *manifests.entries(), *files.entries()]
"""All of it."""

TITLE = """# Hostile frames and files

Made by `python tests/make_corpus.py`; do not edit. Each is refused with the error of this package that the last
column names, or, where it names none, passed over without a change.

| file | what it is | refused with |
|---|---|---|
"""


def readme() -> str:
    """The table of all entries."""
    lines = [f"| `{entry.folder}/{entry.name}.bin` | {entry.what} | {entry.refusal} |" for entry in ENTRIES]
    return TITLE + "\n".join(lines) + "\n"


def made() -> dict[str, bytes]:
    """Every file's content by its path in the corpus."""
    content = {f"{entry.folder}/{entry.name}.bin": entry.data for entry in ENTRIES}
    assert len(content) == len(ENTRIES), "two entries of one name"
    return {**content, "README.md": readme().encode()}


def main() -> None:
    """Write it, and remove what does not belong to it any more."""
    files_of = made()
    for path in CORPUS.rglob("*"):
        if path.is_file() and str(path.relative_to(CORPUS)) not in files_of:
            path.unlink()
    for name, data in files_of.items():
        path = CORPUS / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)
    print(f"{len(files_of)} files in {CORPUS}, {sum(map(len, files_of.values())):,} bytes")


if __name__ == "__main__":
    main()
