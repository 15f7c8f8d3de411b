"""How many of a suite's tests that pass stock also pass with the plugin, and what is said of the others.

    python benchmarks/upstream/compare.py stock.xml plugin.xml --list differences.md

Both files are JUnit XML as pytest's ``--junitxml`` writes it.
"""

from __future__ import annotations

import argparse
from collections import defaultdict
from pathlib import Path
from xml.etree import ElementTree

LONGEST = 160
"""Characters of a message that are shown."""


def read(path: Path) -> dict[str, tuple[str, str]]:
    """``passed``, ``failed`` or ``skipped``, and the message's first line, of every test in a report."""
    found: dict[str, tuple[str, str]] = {}
    for case in ElementTree.parse(path).iter("testcase"):
        name = f"{case.get('classname', '')}::{case.get('name', '')}"
        # pytest writes a test whose teardown fails twice; the worse outcome counts.
        outcome, message = found.get(name, ("passed", ""))
        for kind in ("failure", "error", "skipped"):
            element = case.find(kind)
            if element is not None and outcome != "failed":
                outcome = "skipped" if kind == "skipped" else "failed"
                message = (element.get("message") or "").strip().split("\n")[0]
        found[name] = (outcome, message)
    return found


def main() -> None:
    """Print the figures; write the list of differences."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("stock", type=Path)
    parser.add_argument("plugin", type=Path)
    parser.add_argument("--list", type=Path, help="write the differences here, as Markdown")
    options = parser.parse_args()
    stock, plugin = read(options.stock), read(options.plugin)
    passing = [name for name, (outcome, _) in stock.items() if outcome == "passed"]
    missing = [name for name in passing if name not in plugin]
    lost = [name for name in passing if name in plugin and plugin[name][0] != "passed"]
    kept = len(passing) - len(missing) - len(lost)
    print(f"pass stock: {len(passing)} of {len(stock)}")
    if passing:
        print(f"of these, pass with the plugin: {kept} = {100 * kept / len(passing):.1f} %")
    print(f"do not: {len(lost)}; not run: {len(missing)}")
    groups: dict[str, list[str]] = defaultdict(list)
    for name in lost:
        outcome, message = plugin[name]
        groups[f"{outcome}: {message[:LONGEST]}"].append(name)
    lines = []
    for message, names in sorted(groups.items(), key=lambda item: -len(item[1])):
        lines += [f"- {message}", *(f"  - `{name}`" for name in names)]
    if options.list:
        options.list.write_text("\n".join(lines) + "\n")
    else:
        print("\n".join(lines))


if __name__ == "__main__":
    main()
