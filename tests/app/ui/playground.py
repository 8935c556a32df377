"""What a person does on the page, by the names they see."""

import re
from typing import Any

import httpx2
from playwright.sync_api import ConsoleMessage, Locator, Page, expect

_PATIENCE_MS = 30_000
expect.set_options(timeout=_PATIENCE_MS)


class Playground:
    """One open page and the server behind it; what it asks for, and the errors and forbidden acts of its scripts."""

    def __init__(self, page: Page, server: str) -> None:
        self.page = page
        self.server = server
        self.requests: list[str] = []
        self.faults: list[str] = []
        page.set_default_timeout(_PATIENCE_MS)
        page.on("request", lambda request: self.requests.append(request.url))
        page.on("pageerror", lambda error: self.faults.append(str(error)))
        page.on("console", self._heard)

    @property
    def answer(self) -> Locator:
        """The part of the page that tells the answer."""
        return self.page.get_by_role("region", name="Answer", exact=True)

    @property
    def alert(self) -> Locator:
        """What went wrong."""
        return self.page.get_by_role("alert")

    def choose(self, task: str) -> None:
        """Choose a task."""
        self.page.get_by_role("radio", name=task, exact=True).check()

    def type(self, **texts: str) -> None:
        """Fill in the fields, by their labels."""
        for label, text in texts.items():
            self.page.get_by_label(label, exact=True).fill(text)

    def analyse(self) -> Locator:
        """Press the button and wait for the answer or for what went wrong."""
        with self.page.expect_response(re.compile(r"/v1/\w+/[\w-]+$")):
            self.page.get_by_role("button", name="Analyse").click()
        return self.settled()

    def settled(self) -> Locator:
        """The answer's region, when there is one and no request is under way."""
        expect(self.answer).to_be_visible()
        expect(self.answer).not_to_have_attribute("aria-busy", "true")
        return self.answer

    def ask(self, path: str, inputs: Any, **parameters: Any) -> Any:
        """What the API answers to the same, without the page."""
        body = {"inputs": inputs, **({"parameters": parameters} if parameters else {})}
        response = httpx2.post(f"{self.server}/v1/{path}", json=body)
        assert response.status_code == 200, response.text
        return response.json()

    def _heard(self, said: ConsoleMessage) -> None:
        if "Content Security Policy" in said.text:
            self.faults.append(said.text)
