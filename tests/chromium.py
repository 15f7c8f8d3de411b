"""Finds the Chromium that the report is looked at in; as a script, installs one where there is none.

    python tests/chromium.py

takes Debian's package where there is apt and the rights for it, else what Playwright downloads.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

NAMES = ("chromium-headless-shell", "chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
LEAVE_OUT = "SHARED_SEED_NO_BROWSER"
"""Set it to 1 to run the tests without a browser, knowingly."""

ADVICE = (
    "no Chromium was found that starts, so nobody has looked at the report; `make browser` installs one, as root "
    "from Debian's packages, else by Playwright's download; SHARED_SEED_CHROMIUM may name one that is there; "
    f"{LEAVE_OUT}=1 leaves out the tests that need it"
)


def left_out() -> str | None:
    """Why the tests do without a browser, where somebody has said so."""
    return f"{LEAVE_OUT}=1: the report is not looked at in a browser" if os.environ.get(LEAVE_OUT) == "1" else None


def found() -> str | None:
    """The path of a Chromium, not yet tried."""
    named = os.environ.get("SHARED_SEED_CHROMIUM")
    if named:
        return named
    for name in NAMES:
        path = shutil.which(name)
        if path:
            return path
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        own = playwright.chromium.executable_path
    return own if Path(own).exists() else None


def launch(playwright: Any, path: str) -> Any:
    """The browser; root, as in containers, has no sandbox."""
    root = ["--no-sandbox"] if hasattr(os, "geteuid") and os.geteuid() == 0 else []
    return playwright.chromium.launch(executable_path=path, args=[*root, "--disable-dev-shm-usage"])


def version() -> str | None:
    """The version of the Chromium that is found, if it starts."""
    from playwright.sync_api import Error, sync_playwright

    path = found()
    if path is None:
        return None
    with sync_playwright() as playwright:
        try:
            browser = launch(playwright, path)
        except Error as error:
            sys.stderr.write(f"{path} does not start: {error}\n")
            return None
        number: str = browser.version
        browser.close()
        return number


def install() -> None:
    """Try what may help, one thing after the other, until one starts."""
    apt = ["apt-get", "-q", "-o", "DPkg::Lock::Timeout=300"]
    ways = []
    if shutil.which("apt-get") and hasattr(os, "geteuid") and os.geteuid() == 0:
        fetch = [*apt, "install", "-y", "--no-install-recommends"]
        ways += [[[*apt, "update"], [*fetch, name]] for name in ("chromium-headless-shell", "chromium")]
        playwright = ["install", "--with-deps", "--only-shell", "chromium"]
    else:
        playwright = ["install", "--only-shell", "chromium"]
    ways.append([[sys.executable, "-m", "playwright", *playwright]])
    quiet = {**os.environ, "DEBIAN_FRONTEND": "noninteractive"}
    for commands in ways:
        for command in commands:
            sys.stderr.write(f"{' '.join(command)}\n")
            if subprocess.run(command, env=quiet, stdout=subprocess.DEVNULL, check=False).returncode:
                break
        if version() is not None:
            return


def main() -> int:
    if why := left_out():
        sys.stderr.write(f"{why}\n")
        return 0
    if version() is None:
        install()
    number = version()
    sys.stderr.write(f"Chromium {number} at {found()}\n" if number else f"{ADVICE}\n")
    return 0 if number else 1


if __name__ == "__main__":
    raise SystemExit(main())
