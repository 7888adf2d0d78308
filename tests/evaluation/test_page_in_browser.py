"""The report in a real browser: no request, no sideways scrolling, both themes, and a switch that needs no script."""

import json
import shutil
import socket
import subprocess
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from gpt2kit.evaluation.page import html_page

pytestmark = [
    pytest.mark.slow,
    pytest.mark.socket,
    pytest.mark.usefixtures("socket_enabled"),
    pytest.mark.skipif(
        not (shutil.which("chromium") and shutil.which("chromedriver")), reason="needs chromium and chromedriver"
    ),
]
FLAGS = (
    "--headless --no-sandbox --disable-gpu --no-first-run --disable-background-networking --disable-component-update "
    "--disable-sync --hide-scrollbars"
).split()


class Browser:
    """Chromium behind chromedriver, spoken to by plain HTTP.

    Args:
        port: where chromedriver listens.
        profile: a fresh folder for what chromium remembers.
    """

    def __init__(self, port: int, profile: Path) -> None:
        self._root = f"http://127.0.0.1:{port}"
        asked = {
            "browserName": "chrome",
            "goog:loggingPrefs": {"browser": "ALL"},
            "goog:chromeOptions": {"args": [*FLAGS, f"--user-data-dir={profile}"]},
        }
        self._session = f"/session/{self._call('/session', {'capabilities': {'alwaysMatch': asked}})['sessionId']}"

    def _call(self, path: str, body: dict[str, Any]) -> Any:
        request = urllib.request.Request(
            self._root + path, json.dumps(body).encode(), {"Content-Type": "application/json"}
        )
        with urllib.request.urlopen(request, timeout=60) as answer:
            return json.loads(answer.read())["value"]

    def tell(self, command: str, **parameters: Any) -> Any:
        """Give the browser an order of its own protocol."""
        return self._call(f"{self._session}/goog/cdp/execute", {"cmd": command, "params": parameters})

    def open(self, page: Path, *, width: int, scheme: str, script: bool = True) -> None:
        """Show a page on a screen of some width, in the dark or the light."""
        self.tell("Emulation.setDeviceMetricsOverride", width=width, height=800, deviceScaleFactor=1, mobile=False)
        self.tell("Emulation.setEmulatedMedia", features=[{"name": "prefers-color-scheme", "value": scheme}])
        self.tell("Emulation.setScriptExecutionDisabled", value=not script)
        self._call(f"{self._session}/url", {"url": page.as_uri()})

    def value(self, expression: str) -> Any:
        """What an expression of JavaScript is worth, asked from outside of the page."""
        return self.tell("Runtime.evaluate", expression=expression, returnByValue=True)["result"].get("value")

    def click(self, expression: str) -> None:
        """Click with the mouse on the middle of an element."""
        self.value(f"{expression}.scrollIntoView()")
        x, y = self.value(
            f"(box => [box.x + box.width / 2, box.y + box.height / 2])({expression}.getBoundingClientRect())"
        )
        for kind in ("mousePressed", "mouseReleased"):
            self.tell("Input.dispatchMouseEvent", type=kind, x=x, y=y, button="left", clickCount=1)

    def complaints(self) -> list[str]:
        """What the console says, refused requests and styles among them."""
        return [entry["message"] for entry in self._call(f"{self._session}/se/log", {"type": "browser"})]

    def close(self) -> None:
        """End the session."""
        request = urllib.request.Request(self._root + self._session, method="DELETE")
        urllib.request.urlopen(request, timeout=60).close()


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Browser]:
    """A browser with a fresh profile."""
    import pytest_socket

    pytest_socket.enable_socket()
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    driver = subprocess.Popen(["chromedriver", f"--port={port}"], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        for _ in range(100):
            try:
                urllib.request.urlopen(f"http://127.0.0.1:{port}/status", timeout=5).close()
                break
            except OSError:
                time.sleep(0.1)
        opened = Browser(port, tmp_path_factory.mktemp("profile"))
        yield opened
        opened.close()
    finally:
        driver.terminate()
        driver.wait()


@pytest.mark.parametrize("width", [360, 768, 1280])
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_it_fits_the_screen_and_asks_for_nothing(browser, reported, width, scheme):
    browser.open(reported[0].page, width=width, scheme=scheme)
    assert browser.value("document.documentElement.scrollWidth") == width
    assert browser.value("performance.getEntriesByType('resource').length") == 0
    assert browser.complaints() == []
    ground = browser.value("getComputedStyle(document.body).backgroundColor")
    red = int(ground.removeprefix("rgb(").split(",")[0])
    assert red > 200 if scheme == "light" else red < 60
    # The style sheet is applied: its own policy lets it through.
    assert browser.value("getComputedStyle(document.querySelector('.scroll')).overflowX") == "auto"


def test_on_a_phone_no_figure_of_the_texts_is_cut_in_two(browser, reported, tmp_path):
    values = json.loads(reported[0].report.with_suffix(".json").read_text())
    sets = values["texts"]["sets"]
    sets["model"]["figures"]["rep_2"] = {"value": 0.229, "interval": [0.187, 0.271]}
    values["texts"]["sets"] = dict.fromkeys((*values["models"], "human"), sets["model"])
    (tmp_path / "page.html").write_text(html_page(values), encoding="utf-8")
    browser.open(tmp_path / "page.html", width=390, scheme="light")
    box = "document.querySelector('.with-dots').parentElement"
    assert browser.value(f"{box}.scrollWidth") == browser.value(f"{box}.clientWidth")


def test_the_switch_works_without_script(browser, reported):
    browser.open(reported[0].page, width=1280, scheme="light", script=False)
    shown = "[...document.querySelectorAll('p.body')].filter(p => p.offsetHeight).map(p => p.classList[1])"
    assert set(browser.value(shown)) == {"copies"}
    browser.click("document.querySelector('label[for=view-surprise]')")
    assert set(browser.value(shown)) == {"surprise"}
    browser.click("document.querySelector('label[for=view-copies]')")
    assert set(browser.value(shown)) == {"copies"}


def test_what_strangers_wrote_stays_text(browser, reported):
    browser.open(reported[0].page, width=1280, scheme="light")
    assert browser.value("document.querySelectorAll('script, img, iframe, object').length") == 0
    assert browser.value("document.querySelector('article .body').textContent").startswith("</p><script>alert(1)")


def test_it_prints(browser, reported):
    browser.open(reported[0].page, width=1280, scheme="dark")
    assert len(browser.tell("Page.printToPDF")["data"]) > 10_000
    browser.tell("Emulation.setEmulatedMedia", media="print", features=[])
    assert browser.value("getComputedStyle(document.body).backgroundColor") == "rgb(255, 255, 255)"
    assert browser.value("getComputedStyle(document.querySelector('nav')).display") == "none"
