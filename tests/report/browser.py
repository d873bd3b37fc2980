"""A real browser for pages that act, where one is installed."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
needs_browser = pytest.mark.skipif(CHROMIUM is None, reason="no Chromium on this machine")


def run_browser(address: str, profile: Path, *arguments: str) -> str:
    """Open a page without network and return what the browser prints.

    A browser that is starved hands over a page whose script has not run: it is opened again.
    """
    command = [
        str(CHROMIUM), "--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run",
        "--disable-background-networking", "--hide-scrollbars", "--virtual-time-budget=30000",
        f"--user-data-dir={profile}", "--window-size=1400,1200", *arguments, address,
    ]  # fmt: skip
    for _ in range(4):
        printed = subprocess.run(command, capture_output=True, text=True, timeout=240, check=True).stdout
        if "--dump-dom" not in arguments or "data-opened" in printed.partition(">")[2][:400]:
            break
    return printed
