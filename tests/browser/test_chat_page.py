"""The page of `lmbatch chat` in a real browser: texts come back, users do not wait for each other, nothing leaves."""

from __future__ import annotations

import contextlib
import os
import re
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from playwright.sync_api import Browser, Locator, Page, expect, sync_playwright

from support.browser import QUIET, browser
from support.tiny_export import CONTEXT, write_export

CHINESE = re.compile(r"^[\u4e00-\u9fff，。]+$")
PROMPT = "丁一丈下，"
NOTHING_RUNS = "async () => { const r = await (await fetch('/healthz')).json(); return r.running + r.waiting === 0 }"
WAIT = 60_000  # milliseconds
EVIL = "<img src=http://192.0.2.1/x onerror=alert(1)>丁"


@dataclass
class Server:
    """`lmbatch chat` in a process of its own."""

    process: subprocess.Popen[str]
    address: str


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    base = tmp_path_factory.mktemp("chat")
    folder = write_export(base / "export")
    command = [sys.executable, "-m", "lmbatch", "chat", str(folder), "--port", "0", "--new-tokens", "2000"]
    environ = {**os.environ, "HOME": str(base), "GRADIO_TEMP_DIR": str(base / "gradio"), "OMP_NUM_THREADS": "1"}
    with (base / "err").open("w") as err, subprocess.Popen(
        command, env=environ, stdout=subprocess.PIPE, stderr=err, text=True
    ) as process:  # fmt: skip
        timer = threading.Timer(200, process.kill)
        timer.start()
        assert process.stdout is not None
        line = process.stdout.readline()
        timer.cancel()
        assert line.startswith("http://127.0.0.1:"), (base / "err").read_text()
        yield Server(process, line.split()[0])
        process.kill()


@pytest.fixture(scope="module")
def chromium() -> Iterator[Browser]:
    with sync_playwright() as playwright:
        started = playwright.chromium.launch(executable_path=browser(), args=[*QUIET, "--disable-dev-shm-usage"])
        yield started
        started.close()


@dataclass
class User:
    """Someone with a browser window of their own, and what the window asked for and complained of."""

    page: Page
    requests: list[str] = field(default_factory=list)
    console: list[str] = field(default_factory=list)

    @property
    def answers(self) -> Locator:
        return self.page.locator("#history [data-testid=bot]")

    @property
    def note(self) -> Locator:
        return self.page.locator("#note")

    def ask(self, prompt: str) -> None:
        self.page.locator("#prompt textarea").fill(prompt)
        self.page.locator("#write").click()

    def choose(self, preset: str) -> None:
        self.page.get_by_label(preset, exact=True).check()

    def set(self, control: str, value: int) -> None:
        box = self.page.locator(f"#{control} input[type=number]")
        box.fill(str(value))
        box.press("Tab")


@contextlib.contextmanager
def user_of(chromium: Browser, server: Server, *, width: int = 1280, dark: bool = False) -> Iterator[User]:
    context = chromium.new_context(
        viewport={"width": width, "height": 900}, color_scheme="dark" if dark else "light", locale="en-GB"
    )
    page = context.new_page()
    page.set_default_timeout(WAIT)
    user = User(page)
    page.on("request", lambda request: user.requests.append(request.url))
    page.on("console", lambda line: user.console.append(f"{line.type}: {line.text}"))
    page.on("pageerror", lambda error: user.console.append(f"error: {error}"))
    page.goto(server.address)
    expect(page.locator("#write")).to_be_visible(timeout=WAIT)
    try:
        yield user
    finally:
        context.close()


def finished(user: User, number: int) -> str:
    """The text of the answer with this number, once it is complete."""
    expect(user.answers).to_have_count(number, timeout=WAIT)
    expect(user.page.locator("#write")).to_be_enabled(timeout=WAIT)
    expect(user.note).to_contain_text("limit was reached", timeout=WAIT)
    return user.answers.nth(number - 1).inner_text().strip()


def test_a_prompt_is_continued_with_beams_and_with_samples(chromium: Browser, server: Server) -> None:
    with user_of(chromium, server) as user:
        user.set("tokens", 20)
        user.set("beams", 2)
        user.ask(PROMPT)
        text = finished(user, 1)
        assert text.startswith(PROMPT)
        assert CHINESE.match(text), text
        assert len(text) == len(PROMPT) + 20
        user.choose("Sampling")
        expect(user.page.locator("#beams input[type=number]")).to_have_value("1")
        user.ask("丁")
        assert CHINESE.match(finished(user, 2))
        expect(user.note).to_contain_text("seed")
        expect(user.page.locator("#prompt textarea")).to_have_value("")
        user.page.locator("#go-on").click()
        longer = finished(user, 3)
        assert len(longer) == 1 + 20 + 20
        user.page.locator("#clear").click()
        expect(user.answers).to_have_count(0)
        assert [line for line in user.console if line.startswith("error")] == []
        assert {url for url in user.requests if not url.startswith((server.address, "data:", "blob:"))} == set()


def test_the_model_is_described_and_its_card_is_text(chromium: Browser, server: Server) -> None:
    with user_of(chromium, server) as user:
        assert user.page.title() == "tiny_zh · lmbatch"
        expect(user.page.locator("#head")).to_contain_text("Parameters: 3")
        user.page.get_by_text("Model", exact=True).click()
        expect(user.page.locator("#about")).to_contain_text("sha256:0123456789abcdef")
        expect(user.page.locator("#about")).to_contain_text("<b>bold</b>")
        assert user.page.locator("#about b, #about img").count() == 0


def test_a_second_user_is_answered_while_the_first_still_gets_text(chromium: Browser, server: Server) -> None:
    with user_of(chromium, server) as first, user_of(chromium, server) as second:
        first.choose("Sampling")
        first.set("tokens", CONTEXT - 48)
        first.ask(PROMPT)
        expect(first.note).to_contain_text("a second", timeout=WAIT)
        second.choose("Sampling")
        second.set("tokens", 10)
        second.ask("丁")
        assert CHINESE.match(finished(second, 1))
        expect(first.page.locator("#stop")).to_be_enabled()
        length = len(first.answers.first.inner_text())
        assert length > len(PROMPT)
        first.page.locator("#stop").click()
        expect(first.note).to_contain_text("Stopped after")
        expect(first.page.locator("#write")).to_be_enabled()
        assert len(first.answers.first.inner_text()) >= length
        assert len(first.answers.first.inner_text()) < CONTEXT - 48
        first.page.wait_for_function(NOTHING_RUNS)
        first.ask("丁")
        expect(first.note).to_contain_text("a second", timeout=WAIT)
        first.page.close()  # whoever leaves needs no text any more
        second.page.wait_for_function(NOTHING_RUNS)
        second.ask("丁")
        assert CHINESE.match(finished(second, 2))


def test_what_cannot_be_done_is_said_and_markup_stays_text(chromium: Browser, server: Server) -> None:
    with user_of(chromium, server) as user:
        user.ask("   ")
        expect(user.note).to_contain_text("There is no prompt")
        assert user.answers.count() == 0
        user.choose("Likeliest")
        user.set("tokens", 5)
        user.ask("丁" * (CONTEXT + 100))
        finished(user, 1)
        expect(user.note).to_contain_text("105 are left out")
        user.ask(EVIL)
        finished(user, 2)
        expect(user.answers.nth(1)).to_contain_text(EVIL)
        assert user.page.locator("#history img[src*='192.0.2.1']").count() == 0
        assert not [url for url in user.requests if "192.0.2.1" in url]


@pytest.mark.parametrize(("width", "dark"), [(1280, False), (1280, True), (390, False), (390, True)])
def test_the_page_can_be_drawn(chromium: Browser, server: Server, tmp_path: Path, width: int, dark: bool) -> None:
    with user_of(chromium, server, width=width, dark=dark) as user:
        user.set("tokens", 60)
        user.choose("Sampling")
        user.ask(PROMPT)
        finished(user, 1)
        target = tmp_path / f"page-{width}-{'dark' if dark else 'light'}.png"
        user.page.screenshot(path=target, full_page=True)
        assert target.stat().st_size > 20_000
        assert user.page.evaluate("document.documentElement.scrollWidth") <= width
        heights = user.page.evaluate("[...document.querySelectorAll('#buttons button')].map(b => b.offsetHeight)")
        assert len(set(heights)) == 1  # no label is broken into two lines


def test_sigterm_ends_it_with_code_0_although_a_page_is_open(chromium: Browser, server: Server) -> None:
    with user_of(chromium, server) as user:
        user.set("tokens", 5)
        user.ask("丁")
        finished(user, 1)
        server.process.send_signal(signal.SIGTERM)
        assert server.process.wait(60) == 0
