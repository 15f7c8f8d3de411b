"""What the entry point that makes ``strategy="shared_seed"`` known adds to ``import torch``.

    python benchmarks/import_torch.py

In fresh interpreters that have just imported torch with extensions off, the time to load and call the entry point
as torch does: the scan for entry points is torch's own and is not counted. The median and the least of all runs.
"""

from __future__ import annotations

import argparse
import statistics
import subprocess
import sys

CODE = """
import time
from importlib.metadata import entry_points
import torch
(point,) = [p for p in entry_points(group="torch.backends") if p.name == "shared_seed"]
began = time.perf_counter()
point.load()()
print(time.perf_counter() - began)
"""


def measure(runs: int) -> tuple[float, float]:
    """Milliseconds that the entry point takes: median and least."""
    found = []
    for _ in range(runs):
        done = subprocess.run(
            [sys.executable, "-c", CODE],
            capture_output=True,
            text=True,
            check=True,
            env={"TORCH_DEVICE_BACKEND_AUTOLOAD": "0", "OMP_NUM_THREADS": "1", "PATH": "/usr/bin:/bin"},
        )
        found.append(1000 * float(done.stdout))
    print(f"{runs} runs: median {statistics.median(found):.2f} ms, least {min(found):.2f} ms")
    return statistics.median(found), min(found)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=int, default=20)
    measure(parser.parse_args().runs)
