"""The page of a review: a real process, real HTTP, a real browser, and `kill -9`."""

import contextlib
import http.client
import os
import re
import shutil
import signal
import sqlite3
import subprocess
import sys
import time
from pathlib import Path
from urllib.parse import urlencode

import pytest

pytest.importorskip("starlette")
pytest.importorskip("uvicorn")

NAMES = ("models/alpha-7", "models/beta-9", "gamma")

pytestmark = [pytest.mark.socket, pytest.mark.usefixtures("socket_enabled")]
KEY = "correct horse battery"


class Served:
    """`gpt2kit review` as a process of its own."""

    def __init__(self, report: Path, *words: str, environment: dict[str, str] | None = None) -> None:
        self.database = report.parent / "review.db"
        command = [sys.executable, "-m", "gpt2kit", "review", str(report), "--database", str(self.database)]
        self.process = subprocess.Popen(
            [*command, "--port", "0", *words],
            env=os.environ | (environment or {}),
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        shown = []
        for line in self.process.stderr:
            shown.append(line)
            if found := re.search(r"http://.*:(\d+)/", line):
                self.port = int(found.group(1))
                return
        raise AssertionError("".join(shown))

    def end(self, how: signal.Signals = signal.SIGINT) -> tuple[int, str]:
        self.process.send_signal(how)
        out, _ = self.process.communicate(timeout=60)
        return self.process.returncode, out

    def rows(self, query: str) -> list[tuple]:
        with contextlib.closing(sqlite3.connect(self.database)) as connection:
            return connection.execute(query).fetchall()


class Browser:
    """Keeps a cookie and knows the forms of the page it is on."""

    def __init__(self, port: int) -> None:
        self.port = port
        self.cookie = ""
        self.page = ""

    def ask(self, method: str, path: str, fields: dict | None = None, **headers: str) -> http.client.HTTPResponse:
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=30)
        given = {"Content-Type": "application/x-www-form-urlencoded"} if fields is not None else {}
        given |= {"Cookie": self.cookie} if self.cookie else {}
        given |= {name.replace("_", "-"): value for name, value in headers.items()}
        connection.request(method, path, urlencode(fields) if fields is not None else None, given)
        answer = connection.getresponse()
        self.page = answer.read().decode()
        if cookie := answer.headers.get("Set-Cookie"):
            self.cookie = cookie.partition(";")[0]
        connection.close()
        return answer

    def field(self, name: str) -> str:
        return re.search(rf'name="{name}" value="([^"]*)"', self.page).group(1)

    def send(self, path: str, **fields: str) -> http.client.HTTPResponse:
        answer = self.ask("POST", path, {"token": self.field("token")} | fields)
        if answer.status == 303:
            self.ask("GET", answer.headers["Location"])
        return answer

    def enter(self, name: str, **fields: str) -> http.client.HTTPResponse:
        self.ask("GET", "/")
        return self.send("/enter", name=name, **fields)

    def judge(self, choice: str) -> http.client.HTTPResponse:
        return self.send("/judge", position=self.field("position"), choice=choice, seconds="2.5")


@pytest.fixture
def served(report):
    started = []

    def start(*words: str, **others) -> Served:
        started.append(Served(report, *words, **others))
        return started[-1]

    yield start
    for each in started:
        if each.process.poll() is None:
            each.process.kill()
        each.process.communicate()


def test_a_whole_review_is_blind_survives_a_kill_and_ends_in_results(served):
    server = served("--num_pairs", "9")
    ann = Browser(server.port)
    assert ann.enter("Ann <b>").status == 303
    assert "1 of 9" in ann.page
    assert "Ann &lt;b&gt;" in ann.page
    assert "Once &lt;upon&gt; a time &amp;" in ann.page
    for name in (*NAMES, "alpha", "beta"):
        assert name not in ann.page
    ann.judge("left")
    ann.judge("tie")
    assert "3 of 9" in ann.page
    page_before = ann.page
    server.process.send_signal(signal.SIGKILL)
    server.process.communicate()
    assert server.rows("select rater, position, choice, seconds from judgement order by id") == [
        ("Ann <b>", 0, "left", 2.5),
        ("Ann <b>", 1, "tie", 2.5),
    ]

    server = served("--num_pairs", "9")
    ann.port = server.port
    ann.page = page_before  # the page that was open goes on working
    ann.judge("right")
    assert "4 of 9" in ann.page
    ann.send("/undo")
    assert "3 of 9" in ann.page
    old = ann.page
    ann.judge("skip")
    ann.page = old
    ann.judge("left")  # the same form again: counts once
    assert "4 of 9" in ann.page
    assert server.rows("select choice from judgement where undone is null order by id") == [
        ("left",),
        ("tie",),
        ("skip",),
    ]
    for _ in range(6):
        for name in NAMES:
            assert name not in ann.page
        ann.judge("left")
    assert "That was all: 9 of 9" in ann.page
    assert ann.ask("GET", "/stop").status == 303  # there is nothing left to stop
    ann.ask("GET", "/")
    for name in NAMES:
        assert name not in ann.page

    bob = Browser(server.port)
    bob.enter("Bob")
    assert "1 of 9" in bob.page
    ann.send("/finish")
    assert "Results of 8 judgements" in ann.page
    assert " prompts, 1 tie, 1 skipped" in ann.page
    answer = ann.ask("GET", "/stop")
    assert (answer.status, answer.headers["Location"]) == (303, "/")
    ann.ask("GET", "/")
    for name in NAMES:
        assert name in ann.page
        assert name not in bob.page
    ann.ask("GET", "/")
    answer = ann.send("/judge", position="8", choice="right")
    assert answer.status == 303
    assert len(server.rows("select * from judgement where undone is null")) == 9
    code, out = server.end()
    assert code == 0
    assert out.startswith("9 judgements are in ")


@pytest.mark.parametrize("path", ["/enter", "/judge", "/undo", "/finish", "/leave"])
def test_the_address_of_a_form_leads_back_to_the_page(served, path):
    """It is what a browser shows when the server died before it answered, and what is asked for again."""
    server = served()
    ann = Browser(server.port)
    ann.enter("Ann")
    ann.judge("left")
    answer = ann.ask("GET", path)
    assert (answer.status, answer.headers["Location"]) == (303, "/")
    ann.ask("GET", "/")
    assert "2 of 18" in ann.page
    assert server.rows("select count(*) from judgement where undone is null") == [(1,)]
    ann.ask("GET", "/stop")
    assert '<a class="button main" href="/">Go on judging</a>' in ann.page
    assert ann.page.count('class="main"') == 0  # what cannot be taken back does not stand out
    code, out = server.end()
    assert (code, out.partition(" in ")[0]) == (0, "1 judgement is")


def test_what_a_browser_is_told_and_what_is_refused(served):
    server = served()
    browser = Browser(server.port)
    answer = browser.ask("GET", "/")
    policy = answer.headers["Content-Security-Policy"]
    assert "default-src 'none'" in policy
    assert "frame-ancestors 'none'" in policy
    assert "unsafe" not in policy
    assert answer.headers["Cache-Control"] == "no-store"
    assert answer.headers["X-Content-Type-Options"] == "nosniff"
    assert answer.headers.get("Access-Control-Allow-Origin") is None
    assert answer.headers.get("Server") is None
    assert not re.search(r"https?://", browser.page)
    here = f"127.0.0.1:{server.port}"
    for host in ("evil.example", f"evil.example:{server.port}", "127.0.0.1.evil.example", "", "192.168.0.9"):
        assert browser.ask("GET", "/", Host=host).status == 403, host
    assert browser.ask("GET", "/", Host=f"localhost:{server.port}").status == 200
    assert browser.ask("OPTIONS", "/judge", Origin="http://evil.example").status in (403, 405)
    browser.ask("GET", "/")
    token = browser.field("token")
    for headers in ({"Origin": "http://evil.example"}, {"Origin": "null"}, {"Sec_Fetch_Site": "cross-site"}):
        assert browser.ask("POST", "/enter", {"token": token, "name": "Eve"}, **headers).status == 403, headers
    assert browser.ask("POST", "/enter", {"token": "wrong", "name": "Eve"}).status == 403
    answer = browser.ask("POST", "/enter", {"token": token, "name": "Ann"}, Origin=f"http://{here}")
    assert answer.status == 303
    cookie = answer.headers["Set-Cookie"].lower()
    assert "httponly" in cookie
    assert "samesite=strict" in cookie
    browser.ask("GET", "/")
    good = {"token": browser.field("token"), "position": "0", "choice": "left"}
    for wrong in (
        {"token": token},
        {"token": ""},
        {"choice": "both"},
        {"choice": ""},
        {"position": "-1"},
        {"position": "99"},
        {"position": "²"},
        {"position": "1" * 30},
        {"token": "x" * 20_000},
    ):
        assert browser.ask("POST", "/judge", good | wrong).status == 400, wrong
    stranger = Browser(server.port)
    stranger.cookie = "gpt2kit_review=QW5u.0000"
    assert stranger.ask("POST", "/judge", good).status == 400
    assert stranger.ask("GET", "/stop").status == 303
    assert server.rows("select count(*) from judgement") == [(0,)]
    assert browser.ask("GET", "/results").status == 404
    server.end()


def test_a_server_for_others_asks_for_the_key(served):
    server = served("--host", "0.0.0.0", environment={"GPT2KIT_REVIEW_KEY": KEY})
    browser = Browser(server.port)
    assert browser.enter("Ann").status == 403
    assert "The key is not right." in browser.page
    assert browser.enter("Ann", key="wrong").status == 403
    assert KEY not in browser.page
    assert browser.enter("Ann", key=KEY).status == 303
    assert "1 of 18" in browser.page
    assert browser.ask("GET", "/", Host="192.168.0.9:80").status == 200  # an address cannot be pointed here by a name
    assert browser.ask("GET", "/", Host="evil.example").status == 403
    server.end()


def test_a_port_that_is_taken_is_one_clear_line(served, report):
    server = served()
    command = [sys.executable, "-m", "gpt2kit", "review", str(report), "--port", str(server.port)]
    done = subprocess.run(
        [*command, "--database", str(report.parent / "other.db")], capture_output=True, text=True, check=False
    )
    assert done.returncode == 2
    assert "cannot be served on (Address already in use)" in done.stderr.splitlines()[-1]
    server.end(signal.SIGKILL)


@pytest.fixture
def chromium(tmp_path):
    """A real browser without a window."""
    webdriver = pytest.importorskip("selenium.webdriver")
    browser, driver = shutil.which("chromium"), shutil.which("chromedriver")
    if browser is None or driver is None:
        pytest.skip("chromium and chromedriver are not here")
    options = webdriver.ChromeOptions()
    options.binary_location = browser
    for word in (
        "--headless=new",
        "--no-sandbox",
        "--disable-gpu",
        "--no-first-run",
        "--disable-background-networking",
        "--disable-component-update",
        "--disable-sync",
        f"--user-data-dir={tmp_path / 'profile'}",
    ):
        options.add_argument(word)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
    found = webdriver.Chrome(options=options, service=webdriver.ChromeService(driver))
    yield found
    found.quit()


@pytest.mark.slow
@pytest.mark.browser
@pytest.mark.filterwarnings("ignore::ResourceWarning")  # selenium's own sockets
def test_keys_mouse_and_phone_in_a_real_browser(served, chromium):
    from selenium.webdriver.common.by import By
    from selenium.webdriver.common.keys import Keys

    server = served()

    def wait_for(title: str) -> None:
        deadline = time.monotonic() + 20
        while chromium.title != title:
            assert time.monotonic() < deadline, chromium.title
            time.sleep(0.05)

    def press(key: str) -> None:
        chromium.switch_to.active_element.send_keys(key)

    chromium.get(f"http://127.0.0.1:{server.port}/")
    assert chromium.switch_to.active_element.get_attribute("id") == "name"
    press("A" + "n" * 49)  # a name that fills more than a line of a phone
    press(Keys.ENTER)
    for place, key in enumerate(("1", "2", "3", "s"), 1):
        wait_for(f"{place} of 18")
        press(key)
    wait_for("5 of 18")
    press("u")
    wait_for("4 of 18")
    chromium.find_element(By.CSS_SELECTOR, "button[value=right]").click()
    wait_for("5 of 18")
    rows = server.rows("select choice, seconds from judgement where undone is null order by id")
    assert [choice for choice, _ in rows] == ["left", "right", "tie", "right"]
    assert all(0 < seconds < 30 for _, seconds in rows)
    for button in chromium.find_elements(By.CSS_SELECTOR, "button"):
        assert button.accessible_name
    chromium.execute_cdp_cmd(
        "Emulation.setDeviceMetricsOverride", {"width": 390, "height": 844, "deviceScaleFactor": 2, "mobile": True}
    )
    assert chromium.execute_script("return document.documentElement.scrollWidth") == 390
    left, right = (chromium.find_element(By.ID, name).location for name in ("one", "two"))
    assert left["x"] == right["x"]
    assert left["y"] < right["y"]
    # The key Tab goes through the answers as the eye does.
    answers = [each.location["x"] for each in chromium.find_elements(By.CSS_SELECTOR, ".answers button")]
    assert answers == sorted(answers)
    loaded = chromium.execute_script("return performance.getEntriesByType('resource').map((each) => each.name)")
    assert [each for each in loaded if not each.startswith(("http://127.0.0.1", "data:"))] == []
    assert chromium.get_log("browser") == []
    chromium.find_element(By.LINK_TEXT, "stop and see the results").click()
    wait_for("Stop here?")
    assert chromium.execute_script("return document.documentElement.scrollWidth") == 390
    chromium.find_element(By.XPATH, "//button[text()='Stop and see the results']").click()
    wait_for("Results")
    assert chromium.find_element(By.CLASS_NAME, "sideways").is_displayed()
    assert chromium.execute_script("return document.documentElement.scrollWidth") == 390
    chromium.execute_cdp_cmd("Emulation.clearDeviceMetricsOverride", {})
    assert not chromium.find_element(By.CLASS_NAME, "sideways").is_displayed()
    assert "gamma" in chromium.find_element(By.TAG_NAME, "main").text
    server.end()


def test_behind_a_proxy_that_speaks_https(served):
    server = served("--public_url", "https://Review.example.org")
    ann = Browser(server.port)
    names = {"Host": "review.example.org", "Origin": "https://review.example.org"}
    assert ann.ask("GET", "/", Host="review.example.org").status == 200
    fields = {"token": ann.field("token"), "name": "Ann"}
    assert ann.ask("POST", "/enter", fields, **names | {"Origin": "https://evil.example"}).status == 403
    answer = ann.ask("POST", "/enter", fields, **names)
    assert answer.status == 303
    assert "secure" in answer.headers["Set-Cookie"].lower()


def test_any_address_of_this_machine_is_known(served):
    server = served("--host", "127.0.0.2")
    connection = http.client.HTTPConnection("127.0.0.2", server.port, timeout=30)
    connection.request("GET", "/")
    assert connection.getresponse().status == 200
    connection.close()
