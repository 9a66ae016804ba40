"""A headless Chromium, and the demo page in a process of its own: for the tests and the README's picture."""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from playwright.sync_api import Browser, Page, expect, sync_playwright

ROOT = Path(__file__).parents[2]
CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
# Imported by Python at its start: writes down every address off this machine that the process wants to reach.
WATCH = """
import ipaddress, os, sys

def watch(event, args):
    if event == "socket.getaddrinfo":
        host = args[0]
    elif event == "socket.connect" and isinstance(args[1], tuple):
        host = args[1][0]
    else:
        return
    host = host.decode() if isinstance(host, bytes) else host
    if host not in (None, "", "localhost", "127.0.0.1", "::1", "0.0.0.0"):
        with open(os.environ["WATCH_FILE"], "a") as file:
            file.write(f"{event} {host}\\n")

sys.addaudithook(watch)
"""


@contextmanager
def opened_browser() -> Iterator[Browser]:
    """Start Debian's chromium (a container's root needs --no-sandbox); it can reach nothing but this machine."""
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(
            executable_path=CHROMIUM,
            args=["--no-sandbox", "--host-resolver-rules=MAP * ~NOTFOUND , EXCLUDE 127.0.0.1"],
        )
        yield browser
        browser.close()


@contextmanager
def served_demo(folder: Path, *arguments: object, watch_file: Path | None = None) -> Iterator[str]:
    """Run ``hf-prompting demo FOLDER`` and give the page's address; what it prints must be that one line.

    With ``watch_file``, every address off this machine that the process wants to reach is written there, and when
    Ctrl-C has ended it none of its temporary files may be left.
    """
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    environment = {**os.environ, "HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)}
    if watch_file is not None:
        (watch_file.parent / "sitecustomize.py").write_text(WATCH, encoding="utf-8")
        environment["PYTHONPATH"] = f"{watch_file.parent}{os.pathsep}{ROOT}"
        environment["WATCH_FILE"] = str(watch_file)
        environment["TMPDIR"] = str(watch_file.parent / "temporary")
        (watch_file.parent / "temporary").mkdir()
        watch_file.touch()
    command = [sys.executable, "-m", "hf_prompting", "demo", folder, "--port", port, *arguments]
    with subprocess.Popen([str(part) for part in command], env=environment, stdout=subprocess.PIPE, text=True) as demo:
        try:
            assert demo.stdout is not None
            line = demo.stdout.readline()
            assert line == f"Open http://127.0.0.1:{port}/ in a browser; Ctrl-C ends it\n", line
            yield f"http://127.0.0.1:{port}/"
        finally:
            demo.send_signal(signal.SIGINT)
    if watch_file is not None:
        left = [path for path in (watch_file.parent / "temporary").rglob("*") if path.is_file()]
        assert left == [], left


def classify(page: Page, text: str) -> None:
    """Type a text into the first box of the first tab and press its button."""
    page.locator("textarea").first.fill(text)
    page.locator("button.primary:visible").click()


def score_file(page: Page, file: Path) -> None:
    """Open the second tab, upload a file in place of an earlier one, and press the button."""
    page.get_by_role("tab").nth(1).click()
    clear = page.locator("#upload button[aria-label='Clear']")
    if clear.count():
        clear.click()
    page.locator("#upload input[type=file]").set_input_files(file)
    expect(page.locator("#upload .filename")).to_have_attribute("aria-label", file.name)
    page.locator("button.primary:visible").click()
