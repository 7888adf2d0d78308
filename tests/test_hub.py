"""Base models by name, against a server on this machine that stands for the Hub."""

import hashlib
import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest

from gpt2kit.errors import UsageError
from gpt2kit.hub import PINNED_REVISIONS, resolve_base

pytestmark = [pytest.mark.socket, pytest.mark.usefixtures("socket_enabled")]

WEIGHTS = bytes(range(256)) * 12_000  # about 3 MB
COMMIT = "0123456789abcdef0123456789abcdef01234567"


@dataclass
class Hub:
    """A server with one model, and what it was asked.

    Attributes:
        files: contents by name.
        asked: (path, Range header) of each request for the weights.
        cut: break the connection after so many bytes of the weights, as often as given.
        stall: send so many bytes of the weights and then nothing more.
    """

    files: dict[str, bytes]
    commit: str = COMMIT
    asked: list[tuple[str, str | None]] = field(default_factory=list)
    cut: list[int] = field(default_factory=list)
    stall: int | None = None
    ignores_ranges: bool = False
    damage: bool = False
    endpoint: str = ""


def _described(hub: Hub, name: str, name_key: str) -> dict[str, Any]:
    content = hub.files[name]
    described: dict[str, Any] = {name_key: name, "size": len(content), "type": "file"}
    described["oid"] = described["blobId"] = hashlib.sha1(content).hexdigest()
    if name.endswith(".safetensors"):
        described["lfs"] = {
            "size": len(content),
            "sha256": hashlib.sha256(content).hexdigest(),
            "oid": hashlib.sha256(content).hexdigest(),
            "pointerSize": 130,
        }
    return described


def _handler(hub: Hub) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        def do_HEAD(self) -> None:
            self._answer(body=False)

        def do_GET(self) -> None:
            self._answer(body=True)

        def log_message(self, format: str, *args: Any) -> None:
            pass

        def _answer(self, *, body: bool) -> None:
            path = urlsplit(self.path).path
            if path.startswith("/api/models/tales/king/tree/"):
                self._send_json([_described(hub, name, "path") for name in hub.files])
            elif path in ("/api/models/tales/king", f"/api/models/tales/king/revision/{hub.commit}") or path.endswith(
                "/revision/main"
            ):
                siblings = [_described(hub, name, "rfilename") for name in hub.files]
                self._send_json({"id": "tales/king", "sha": hub.commit, "siblings": siblings})
            elif "/resolve/" in path and path.rpartition("/")[2] in hub.files:
                self._send_file(path.rpartition("/")[2], body=body)
            else:
                self.send_response(404)
                self.send_header("X-Error-Code", "RepoNotFound")
                self.send_header("Content-Length", "0")
                self.end_headers()

        def _send_json(self, value: Any) -> None:
            content = json.dumps(value).encode()
            self.send_response(200)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            self.wfile.write(content)

        def _send_file(self, name: str, *, body: bool) -> None:
            content = hub.files[name]
            large = name.endswith(".safetensors")
            wanted = self.headers.get("Range")
            if large and body:
                hub.asked.append((self.path, wanted))
                if hub.damage:
                    content = bytes(len(content))
            start = 0
            if wanted is not None and not hub.ignores_ranges:
                start = int(wanted.removeprefix("bytes=").partition("-")[0])
            self.send_response(206 if start else 200)
            etag = (hashlib.sha256 if large else hashlib.sha1)(hub.files[name]).hexdigest()
            self.send_header("ETag", f'"{etag}"')
            self.send_header("X-Repo-Commit", hub.commit)
            self.send_header("Content-Length", str(len(content) - start))
            if start:
                self.send_header("Content-Range", f"bytes {start}-{len(content) - 1}/{len(content)}")
            self.end_headers()
            if not body:
                return
            if large and hub.stall is not None:
                self.wfile.write(content[start : hub.stall])
                self.wfile.flush()
                time.sleep(60)
            elif large and hub.cut:
                self.wfile.write(content[start : start + hub.cut.pop(0)])
                self.wfile.flush()
                self.connection.close()
            else:
                self.wfile.write(content[start:])

    return Handler


@pytest.fixture
def hub() -> Iterator[Hub]:
    served = Hub(
        files={
            "config.json": b'{"model_type": "gpt2"}',
            "tokenizer.json": b"{}",
            "merges.txt": b"#version: 0.2\n",
            "model.safetensors": WEIGHTS,
            "pytorch_model.bin": b"a pickle",
            "modeling_king.py": b"raise SystemExit",
            "onnx/config.json": b"{}",
        }
    )
    server = ThreadingHTTPServer(("127.0.0.1", 0), _handler(served))
    server.daemon_threads = True
    served.endpoint = f"http://127.0.0.1:{server.server_address[1]}"
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    yield served
    server.shutdown()
    thread.join()
    server.socket.close()  # not server_close(), which would wait for a stalled answer


def _environment(endpoint: str, home: Path, more: dict[str, str]) -> dict[str, str]:
    kept = {name: value for name, value in os.environ.items() if not name.startswith("HF_")}
    return kept | {"HF_ENDPOINT": endpoint, "HF_HOME": str(home), "HF_HUB_DISABLE_TELEMETRY": "1"} | more


def fetch(hub: Hub, home: Path, *words: str, **environment: str) -> subprocess.CompletedProcess[str]:
    """Run `gpt2kit fetch tales/king` (or other words) as a process of its own."""
    return subprocess.run(
        [sys.executable, "-m", "gpt2kit", "fetch", *(words or ("tales/king",))],
        env=_environment(hub.endpoint, home, environment),
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )


def fetched(done: subprocess.CompletedProcess[str]) -> Path:
    assert done.returncode == 0, done.stderr
    return Path(done.stdout.strip())


def test_data_is_fetched_and_neither_pickles_nor_code(hub: Hub, tmp_path: Path) -> None:
    done = fetch(hub, tmp_path)
    folder = fetched(done)
    assert sorted(path.name for path in folder.iterdir()) == [
        "config.json",
        "merges.txt",
        "model.safetensors",
        "tokenizer.json",
    ]
    assert (folder / "model.safetensors").read_bytes() == WEIGHTS
    assert done.stderr.splitlines() == ["fetching tales/king (3 MB, revision 01234567) from the Hub"]
    assert hub.asked == [(f"/tales/king/resolve/{COMMIT}/model.safetensors", None)]


def test_a_fetched_model_needs_no_network_any_more(hub: Hub, tmp_path: Path) -> None:
    folder = fetched(fetch(hub, tmp_path))
    again = fetch(hub, tmp_path, HF_HUB_OFFLINE="1")
    assert fetched(again) == folder
    assert again.stderr == ""
    assert len(hub.asked) == 1


def test_a_download_that_was_killed_goes_on_where_it_stopped(hub: Hub, tmp_path: Path) -> None:
    hub.stall = 2_000_000
    process = subprocess.Popen(
        [sys.executable, "-m", "gpt2kit", "fetch", "tales/king"],
        env=_environment(hub.endpoint, tmp_path, {}),
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    deadline = time.monotonic() + 30
    have = 0
    while have < 1_000_000 and time.monotonic() < deadline:
        time.sleep(0.02)
        have = max((path.stat().st_size for path in tmp_path.rglob("*.partial")), default=0)
    process.send_signal(signal.SIGKILL)
    process.wait()
    (partial,) = tmp_path.rglob("*.partial")
    have = partial.stat().st_size
    assert have >= 1_000_000
    hub.stall = None
    done = fetch(hub, tmp_path)
    assert (fetched(done) / "model.safetensors").read_bytes() == WEIGHTS
    assert [wanted for _, wanted in hub.asked] == [None, f"bytes={have}-"]
    assert f"going on with model.safetensors at {have / 1e6:,.0f} of 3 MB" in done.stderr
    assert not list(tmp_path.rglob("*.partial"))


def test_a_connection_that_breaks_is_taken_up_again(hub: Hub, tmp_path: Path) -> None:
    hub.cut = [1_500_000]
    assert (fetched(fetch(hub, tmp_path)) / "model.safetensors").read_bytes() == WEIGHTS
    assert len(hub.asked) == 2
    assert hub.asked[1][1] is not None


def test_a_server_that_sends_everything_again_is_understood(hub: Hub, tmp_path: Path) -> None:
    hub.ignores_ranges = True
    hub.cut = [1_500_000]
    assert (fetched(fetch(hub, tmp_path)) / "model.safetensors").read_bytes() == WEIGHTS


def test_damaged_weights_are_refused_and_removed(hub: Hub, tmp_path: Path) -> None:
    hub.damage = True
    done = fetch(hub, tmp_path)
    assert done.returncode == 1
    assert done.stderr.endswith(
        "gpt2kit: error: model.safetensors arrived damaged (its SHA-256 differs) and was removed: fetch it again\n"
    )
    hub.damage = False
    assert (fetched(fetch(hub, tmp_path)) / "model.safetensors").read_bytes() == WEIGHTS


def test_an_unknown_model_and_revision_are_usage_errors(hub: Hub, tmp_path: Path) -> None:
    done = fetch(hub, tmp_path, "tales/queen")
    assert done.returncode == 2
    assert done.stderr == "gpt2kit: error: the Hub has no open model 'tales/queen': check the name, or name a folder\n"
    done = fetch(hub, tmp_path, "no such name!")
    assert done.returncode == 2
    assert (
        done.stderr == "gpt2kit: error: 'no such name!': no such folder, and no possible name of a model on the Hub\n"
    )


def test_a_model_that_has_only_pickles_is_refused(hub: Hub, tmp_path: Path) -> None:
    del hub.files["model.safetensors"]
    done = fetch(hub, tmp_path)
    assert done.returncode == 1
    assert "has no weights as safetensors (only pytorch_model.bin, a pickle" in done.stderr


def test_a_known_name_means_its_pinned_revision(hub: Hub, tmp_path: Path) -> None:
    done = fetch(hub, tmp_path, "gpt2")  # this server does not have it
    assert done.returncode == 2
    assert f"no open model 'gpt2' at revision {PINNED_REVISIONS['gpt2']}" in done.stderr


def test_without_a_network_the_remedies_are_named_at_once(hub: Hub, tmp_path: Path) -> None:
    start = time.monotonic()
    closed = Hub(files={}, endpoint="http://127.0.0.1:9")
    done = fetch(closed, tmp_path, "gpt2")
    assert time.monotonic() - start < 10
    assert done.returncode == 1
    assert done.stderr == (
        "gpt2kit: error: gpt2 is no folder here nor a model fetched before, and the Hub cannot be reached "
        "(ConnectError): run `gpt2kit fetch gpt2` where there is a network (it goes on where it stopped), or name a "
        "local model's folder, or nano, the small model in this package\n"
    )
    done = fetch(closed, tmp_path, "gpt2", HF_HUB_OFFLINE="1")
    assert "(HF_HUB_OFFLINE is set)" in done.stderr


def test_a_copy_goes_into_the_folder_asked_for_and_replaces_nothing(hub: Hub, tmp_path: Path) -> None:
    output = tmp_path / "models" / "king"
    assert fetched(fetch(hub, tmp_path, "tales/king", "--output_dir", str(output))) == output
    assert (output / "model.safetensors").read_bytes() == WEIGHTS
    assert not (output / "model.safetensors").is_symlink()
    (output / "notes.md").write_text("mine")
    assert fetched(fetch(hub, tmp_path, "tales/king", "--output-dir", str(output))) == output
    (output / "config.json").write_text("{}")
    done = fetch(hub, tmp_path, "tales/king", "--output_dir", str(output))
    assert done.returncode == 2
    assert done.stderr == f"gpt2kit: error: --output_dir {output} holds another config.json; choose a new folder\n"
    assert (output / "config.json").read_text() == "{}"


def test_a_local_folder_wins_over_a_name_on_the_hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "gpt2").mkdir()
    assert resolve_base("gpt2") == Path("gpt2")


@pytest.mark.parametrize("name", ["/no/such", "./king", "../king", "~/king", "a/b/c", ""])
def test_a_path_that_is_not_there_is_not_looked_up_on_the_hub(name: str) -> None:
    with pytest.raises(UsageError, match="no such folder; name a model's folder, nano, or one on the Hub"):
        resolve_base(name)


def test_a_file_is_no_model(tmp_path: Path) -> None:
    file = tmp_path / "model.safetensors"
    file.write_bytes(b"")
    with pytest.raises(UsageError, match="is a file; a base model is a folder"):
        resolve_base(file)
