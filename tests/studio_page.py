"""A tab with the studio's page, for tests: what it asks for and complains about, and its fields."""

from __future__ import annotations

import time
from typing import Any


class Studio:
    """Opens the page of `url` in a new context of `browser`."""

    def __init__(self, browser: Any, url: str, **context: Any):
        context = {"viewport": {"width": 1280, "height": 900}, "locale": "en-GB", **context}
        self.url = url
        self.context = browser.new_context(reduced_motion="reduce", **context)
        self.tab = self.context.new_page()
        self.tab.set_default_timeout(60_000)
        self.requests: list[str] = []
        self.complaints: list[str] = []
        self.tab.on("request", lambda request: self.requests.append(request.url))
        self.tab.on("console", lambda said: self.complaints.append(said.text))
        self.tab.on("pageerror", lambda error: self.complaints.append(str(error)))
        self.tab.goto(url)
        self.tab.locator("h1, .loading").wait_for()
        self.tab.evaluate(
            """() => { window.heard = []; const region = document.getElementById('said');
            new MutationObserver(() => window.heard.push(region.textContent))
              .observe(region, {childList: true}) }"""
        )

    def __enter__(self) -> Studio:
        return self

    def __exit__(self, *_: object) -> None:
        self.context.close()

    def go(self, address: str) -> None:
        self.tab.evaluate("(hash) => { location.hash = hash }", address)

    def until(self, expression: str) -> None:
        """Not wait_for_function: it evaluates inside the page, which the page's policy forbids."""
        deadline = time.monotonic() + 60
        while not self.tab.evaluate(expression):
            assert time.monotonic() < deadline, expression
            self.tab.wait_for_timeout(20)

    def seen(self, text: str) -> Any:
        """Where a text stands on the page, beside what is only heard."""
        return self.tab.locator("#main").get_by_text(text)

    def button(self, name: str) -> Any:
        return self.tab.get_by_role("button", name=name, exact=True)

    def prompt(self, number: int) -> Any:
        return self.tab.get_by_label(f"Prompt of event {number}", exact=True)

    def length(self, number: int) -> Any:
        return self.tab.get_by_label(f"Seconds of event {number}", exact=True)

    def planned(self) -> None:
        """Waits for the plan of what stands in the form."""
        self.tab.locator(".dock:not([aria-busy]) .facts:not(.waiting)").wait_for()

    def write(self, shared: str, *prompts: str) -> None:
        self.tab.get_by_label("Throughout").fill(shared)
        for number, prompt in enumerate(prompts, 1):
            self.prompt(number).fill(prompt)

    def error(self, field: str) -> str:
        """The error at a field, after it has come; it is also what describes the control."""
        node = self.tab.locator(f'[data-field="{field}"]')
        node.locator(".error:not(:empty)").wait_for()
        control = node.locator("[aria-invalid=true]").first
        text: str = node.locator(".error").inner_text()
        described = (
            "(e) => (e.closest('[aria-describedby]').getAttribute('aria-describedby') || '')"
        )
        ids = control.evaluate(described).split()
        said = " ".join(self.tab.locator(f"#{name}").text_content() or "" for name in ids)
        assert text in said
        return text

    def tab_to(self, name: str, most: int = 80) -> None:
        """Presses Tab until what is called `name` has the focus."""
        for _ in range(most):
            self.tab.keyboard.press("Tab")
            if self.focused() == name:
                return
        raise AssertionError(f"no way to {name!r} by Tab; the focus is at {self.focused()!r}")

    def focused(self) -> str:
        """The name of what has the focus, as a screen reader says it (roughly)."""
        said: str = self.tab.evaluate(
            """() => { const e = document.activeElement; return (e.getAttribute('aria-label') ||
            e.labels?.[0]?.innerText || e.innerText || '').trim().split('\\n')[0] }"""
        )
        return said

    def outlined(self) -> bool:
        """Whether it can be seen what has the focus, and it is not hidden behind the plan."""
        return bool(
            self.tab.evaluate(
                """() => {
                let e = document.activeElement;
                if (e.type === 'radio') e = e.nextElementSibling;
                const style = getComputedStyle(e);
                const box = e.getBoundingClientRect();
                const dock = document.querySelector('.dock');
                const apart = dock && !dock.contains(e);
                const over = apart ? dock.getBoundingClientRect().top : innerHeight;
                return style.outlineStyle !== 'none' && parseFloat(style.outlineWidth) >= 2
                  && box.top < over && box.bottom > 0 }"""
            )
        )
