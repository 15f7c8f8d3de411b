"""One target under atheris: ``bred.py TARGET FOLDER [options of libFuzzer]``; run by benchmarks/fuzz.py."""

from __future__ import annotations

import hashlib
import sys
from pathlib import Path

import atheris

sys.path.insert(0, str(Path(__file__).parent.parent))
with atheris.instrument_imports(include=["shared_seed"]):
    from fuzzing.targets import TARGETS


def main() -> None:
    """Hand over to libFuzzer, which ends the process."""
    name, folder, words = sys.argv[1], Path(sys.argv[2]), sys.argv[3:]

    def one(data: bytes) -> None:
        try:
            TARGETS[name].takes(data)
        except Exception:
            (folder / f"{name}-{hashlib.sha256(data).hexdigest()[:12]}.bin").write_bytes(data)
            raise

    atheris.Setup([sys.argv[0], *words], one)
    atheris.Fuzz()


if __name__ == "__main__":
    main()
