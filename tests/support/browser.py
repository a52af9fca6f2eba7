"""A real browser without a window: what a page became in it, what it asked of the network, what it complained of."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

_PROGRAMS = ("chromium", "chromium-browser", "google-chrome")
QUIET = (
    "--headless", "--no-sandbox", "--disable-gpu", "--no-first-run", "--disable-background-networking",
    "--disable-component-update", "--disable-sync", "--disable-default-apps", "--hide-scrollbars",
    "--host-resolver-rules=MAP * ~NOTFOUND, EXCLUDE 127.0.0.1",
)  # fmt: skip
_OWN = "not an origin"  # who asked, in the log: the browser itself, for its updates


@dataclass(frozen=True)
class Visit:
    """``dom`` is the document after loading, ``requests`` are URLs that the page asked for beside itself."""

    dom: str
    requests: tuple[str, ...]
    console: tuple[str, ...]


def browser() -> str:
    """The program; the test is skipped where there is none."""
    found = next(filter(None, map(shutil.which, _PROGRAMS)), None)
    if found is None:
        pytest.skip("this machine has no chromium: run `cluster/install.sh chromium` as root")
    return found


def visit(page: Path, folder: Path) -> Visit:
    """Load a file; ``folder`` is for what the browser writes."""
    log = folder / "network.json"
    done = _run(page, folder, f"--log-net-log={log}", "--enable-logging=stderr", "--dump-dom")
    console = tuple(re.findall(r":CONSOLE[:(]\d+\)?\] (.*)", done.stderr))
    return Visit(done.stdout, tuple(_requests(json.loads(log.read_bytes()))), console)


def screenshot(page: Path, folder: Path, *, width: int, height: int) -> bytes:
    """A picture (PNG) of the top of the page in a window of that size."""
    target = folder / f"page-{width}.png"
    _run(page, folder, f"--screenshot={target}", f"--window-size={width},{height}")
    return target.read_bytes()


def _run(page: Path, folder: Path, *flags: str) -> subprocess.CompletedProcess[str]:
    command = [browser(), *QUIET, f"--user-data-dir={folder / 'browser'}", *flags, page.as_uri()]
    return subprocess.run(command, capture_output=True, text=True, timeout=120, check=True)


def _requests(log: dict[str, Any]) -> list[str]:
    """URLs of the requests that were begun for the page."""
    begun = log["constants"]["logEventTypes"]["URL_REQUEST_START_JOB"]
    found = [event["params"] for event in log["events"] if event["type"] == begun and "params" in event]
    return [params["url"] for params in found if "url" in params and params.get("initiator") != _OWN]
