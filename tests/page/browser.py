"""Debian's Chromium, driven by keyboard: what a person does on the page, in three-line steps."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from playwright.sync_api import Browser, ConsoleMessage, Page

CHROMIUM = Path("/usr/bin/chromium")
HOW_TO_INSTALL = (
    "needs Debian's Chromium (`apt-get install chromium`) and Playwright without its own (`pip install playwright`)"
)
ARGUMENTS = [
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
]
PATIENCE_MS = 15_000
NUMBERS = "dl => Object.fromEntries([...dl.querySelectorAll('dd')].map(d => [d.dataset.name, Number(d.dataset.value)]))"
"""Of a list of terms and numbers, in full precision."""
UNSEEN_MS = 300
"""A little longer than the page waits before it takes a choice on a new task."""


@contextmanager
def chromium() -> Iterator[Browser]:
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=ARGUMENTS)
        yield browser
        browser.close()


@dataclass
class Person:
    """At the keyboard, in a browser context of his own."""

    page: Page
    name: str = ""
    said: list[str] = field(default_factory=list)
    """Warnings and errors of the console, page errors, dialogs: what must stay empty."""

    @classmethod
    def at(cls, browser: Browser, address: str, **context: Any) -> Person:
        page = browser.new_context(**({"viewport": {"width": 1280, "height": 860}} | context)).new_page()
        page.set_default_timeout(PATIENCE_MS)
        person = cls(page)
        page.on("console", person.hear)
        page.on("pageerror", lambda error: person.said.append(str(error)))
        page.on("dialog", lambda dialog: (person.said.append(dialog.message), dialog.dismiss()))
        page.goto(address)
        person.wait_for("signed-out")
        return person

    def hear(self, message: ConsoleMessage) -> None:
        # Chromium itself notes every answer that is no success, and every server that is away.
        if message.type in ("error", "warning") and not message.text.startswith("Failed to load resource"):
            self.said.append(message.text)

    def sign_in(self, name: str, token: str = "") -> None:
        """Focus is on the name when the page is there."""
        self.name = name
        self.page.keyboard.type(name)
        if token:
            self.page.keyboard.press("Tab")
            self.page.keyboard.type(token)
        self.page.keyboard.press("Enter")
        self.page.wait_for_selector("#main:is([data-state=ready], [data-state=empty])")

    def wait_for(self, state: str) -> None:
        self.page.wait_for_selector(f"#main[data-state={state}]")

    def answers(self) -> tuple[str, str]:
        """Of the task on the screen, as a person reads them, once it may be answered."""
        self.wait_for("ready")
        self.page.wait_for_timeout(UNSEEN_MS)
        first, second = self.page.locator(".answer [data-part=text]").all_inner_texts()
        return first.strip(), second.strip()

    def press(self, *keys: str) -> None:
        for key in keys:
            self.page.keyboard.press(key)

    def choose(self, *keys: str) -> None:
        """The last key is a choice: on return the next task is there, or none is left."""
        before = self.shown
        self.press(*keys)
        self.page.wait_for_function(
            "before => { const { shown, state } = document.getElementById('main').dataset;"
            " return state === 'empty' || (state === 'ready' && shown !== before); }",
            arg=before,
        )

    @property
    def shown(self) -> str:
        return str(self.page.evaluate("document.getElementById('main').dataset.shown"))

    @property
    def notice(self) -> str:
        return self.page.locator("#notice").inner_text()

    @property
    def status(self) -> str:
        return self.page.locator("#status").inner_text()

    @property
    def focused(self) -> str:
        return str(self.page.evaluate("document.activeElement.id"))

    def wait_for_notice(self, words: str) -> None:
        self.page.wait_for_selector(f"#notice:has-text('{words}')")

    def overflow(self) -> int:
        """Pixels by which the page is wider than the window."""
        script = "document.documentElement.scrollWidth - document.documentElement.clientWidth"
        return int(self.page.evaluate(script))


def eventually(check: Any, seconds: float = 10.0) -> bool:
    deadline = time.monotonic() + seconds
    while not check():
        if time.monotonic() > deadline:
            return False
        time.sleep(0.05)
    return True
