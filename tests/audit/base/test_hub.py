"""A base model on the Hub: a loop-back server answers, the real huggingface_hub asks.

Its settings are read when it is imported, so each promise is looked at in a process of its own.
"""

import hashlib
import json
import os
import subprocess
import sys
import textwrap
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import save

COMMIT = "0123456789abcdef0123456789abcdef01234567"
SHARDS = {
    "model-00001-of-00002.safetensors": {"model.layers.0.self_attn.q_proj.weight": (96, 80)},
    "model-00002-of-00002.safetensors": {"model.layers.1.self_attn.q_proj.weight": (96, 80)},
}


@dataclass
class Hub:
    """Files of one model, who may read them, and what was asked."""

    files: dict[str, bytes] = field(default_factory=dict)
    gated: bool = False
    down: bool = False
    asked: list[str] = field(default_factory=list)
    url: str = ""

    def asked_for(self, end: str) -> list[str]:
        return [line for line in self.asked if line.split(" ")[1].endswith(end)]


def handler(hub: Hub) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        def log_message(self, format: str, *args: Any) -> None:
            pass

        def answer(self, status: int, body: bytes, **headers: str) -> None:
            self.send_response(status)
            for name, value in headers.items():
                self.send_header(name.replace("_", "-"), value)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            if self.command == "GET":
                self.wfile.write(body)

        def do_GET(self) -> None:
            hub.asked.append(f"{self.command} {self.path} {self.headers.get('Range', '')}")
            if hub.down:
                self.answer(503, b"")
            elif "/org/tiny" not in self.path:
                self.answer(404, b"", X_Error_Code="RepoNotFound")
            elif "/resolve/" in self.path:
                self.resolve(self.path.rpartition("/")[2])
            elif self.path.endswith(("/revision/main", f"/revision/{COMMIT}", "/org/tiny")):
                listing = [{"rfilename": name} for name in hub.files]
                info = {"id": "org/tiny", "sha": COMMIT, "siblings": listing}
                self.answer(200, json.dumps(info).encode(), Content_Type="application/json")
            else:
                self.answer(404, b"", X_Error_Code="RevisionNotFound")

        do_HEAD = do_GET  # noqa: N815 - the name that http.server calls

        def resolve(self, name: str) -> None:
            if hub.gated:
                self.answer(403, b"", X_Error_Code="GatedRepo")
                return
            if name not in hub.files:
                self.answer(404, b"", X_Error_Code="EntryNotFound")
                return
            data = hub.files[name]
            etag = f'"{hashlib.sha256(data).hexdigest()}"'
            known = {"ETag": etag, "X_Repo_Commit": COMMIT, "Accept_Ranges": "bytes"}
            wanted = self.headers.get("Range", "")
            if wanted.startswith("bytes="):
                first, _, last = wanted.removeprefix("bytes=").partition("-")
                end = min(int(last or len(data)), len(data) - 1)
                span = f"bytes {first}-{end}/{len(data)}"
                self.answer(206, data[int(first) : end + 1], Content_Range=span, **known)
            else:
                self.answer(200, data, **known)

    return Handler


@pytest.fixture
def hub() -> Iterator[Hub]:
    rng = np.random.default_rng(0)
    files = {
        name: save({n: rng.standard_normal(s, dtype=np.float32) for n, s in tensors.items()})
        for name, tensors in SHARDS.items()
    }
    weight_map = {tensor: name for name, tensors in SHARDS.items() for tensor in tensors}
    files["model.safetensors.index.json"] = json.dumps({"weight_map": weight_map}).encode()
    files["config.json"] = b'{"tie_word_embeddings": false}'
    files["modeling_evil.py"] = b"raise SystemExit"
    answering = Hub(files=files)
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler(answering))
    answering.url = f"http://127.0.0.1:{server.server_address[1]}"
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield answering
    server.shutdown()
    server.server_close()
    thread.join()


PROGRAM = """
    import json, sys
    from datetime import UTC, datetime
    from pathlib import Path
    from factories_bases import lora_layer
    from gradience.audit.base.norms import base_norms
    from gradience.audit.base.source import open_base
    from gradience.errors import GradienceError

    layers = [lora_layer(f"model.layers.{at}.self_attn.q_proj", (96, 80)) for at in sys.argv[3]]
    try:
        with open_base(sys.argv[1]) as base:
            found = base_norms(layers, base, cache_dir=Path(sys.argv[2]), now=datetime.now(UTC))
    except GradienceError as error:
        print(json.dumps({"error": str(error), "remedy": error.remedy}))
    else:
        print(json.dumps({
            "model": found.model, "revision": found.revision, "fingerprint": found.fingerprint,
            "norms": {label: norm.lower for label, norm in found.by_layer.items()},
            "bytes_read": found.bytes_read, "findings": [f.code for f in found.findings],
            "torch": "torch" in sys.modules,
        }))
"""


@dataclass
class Client:
    """A machine with a Hub cache and a cache of norms."""

    hub: Hub
    home: Path

    def audit(self, base: str = "org/tiny", layers: str = "01", **environ: str) -> dict[str, Any]:
        self.hub.asked.clear()
        command = [sys.executable, "-c", textwrap.dedent(PROGRAM), base]
        done = subprocess.run(
            [*command, str(self.home / "norms"), layers],
            env={
                **{k: v for k, v in os.environ.items() if not k.startswith("HF_")},
                "PYTHONPATH": str(Path(__file__).parents[2]),
                "HF_ENDPOINT": self.hub.url,
                "HF_HOME": str(self.home / "hf"),
                "HF_HUB_DISABLE_XET": "1",
                "HF_HUB_DISABLE_PROGRESS_BARS": "1",
                "NO_PROXY": "127.0.0.1",
                **environ,
            },
            cwd=self.home,
            capture_output=True,
            text=True,
            check=False,
            timeout=60,
        )
        assert done.returncode == 0, done.stderr
        result: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
        return result


@pytest.fixture
def client(hub: Hub, tmp_path: Path) -> Client:
    return Client(hub=hub, home=tmp_path)


def test_only_the_shards_that_are_needed_are_downloaded(client: Client) -> None:
    first, second = SHARDS
    one = client.audit(layers="1")
    assert one["norms"].keys() == {"model.layers.1.self_attn.q_proj"}
    assert (one["model"], one["revision"], one["torch"]) == ("org/tiny", COMMIT, False)
    assert all("bytes=" in line for line in client.hub.asked_for(first))
    assert not all("bytes=" in line for line in client.hub.asked_for(second))
    assert client.hub.asked_for(".py") == []
    cached = {p.name for p in client.home.glob("hf/hub/models--org--tiny/snapshots/*/*")}
    assert cached == {second, "model.safetensors.index.json", "config.json"}

    # Offline with half of the shards: what is there is served, what is not is named.
    offline = client.audit(layers="1", HF_HUB_OFFLINE="1")
    assert offline == {**one, "bytes_read": 0}
    assert client.hub.asked == []
    missing = client.audit(layers="01", HF_HUB_OFFLINE="1")
    assert first in missing["error"]
    assert "model.layers.0.self_attn.q_proj" in missing["error"]
    assert "hf download org/tiny" in missing["remedy"]

    assert client.audit(layers="1", HF_HUB_OFFLINE="1")["bytes_read"] == 0

    # A pinned commit whose shards are all there asks nobody; norms are known already.
    both = client.audit()
    assert both["fingerprint"] == one["fingerprint"]
    pinned = client.audit(f"org/tiny@{COMMIT}")
    assert client.hub.asked == []
    assert pinned == {**both, "bytes_read": 0}


def test_a_hub_that_is_down_is_an_error_only_where_the_cache_does_not_help(client: Client) -> None:
    client.hub.down = True
    assert "did not answer" in client.audit()["error"]
    client.hub.down = False
    online = client.audit()
    client.hub.down = True
    assert client.audit() == {**online, "bytes_read": 0}


def test_what_is_wrong_with_a_name_is_said_with_the_name(client: Client) -> None:
    assert "no model of that name" in client.audit("org/other")["error"]
    assert "no revision v2" in client.audit("org/tiny@v2")["error"]
    offline = client.audit("org/tiny@v2", HF_HUB_OFFLINE="1")
    assert "revision v2 of org/tiny is not in the cache" in offline["error"]
    client.hub.gated = True
    gated = client.audit()
    assert "gated" in gated["error"]
    assert "hf auth login" in gated["remedy"]


def test_a_repository_without_weights_is_refused(client: Client) -> None:
    client.hub.files = {"model.gguf": b"GGUF", "config.json": b"{}"}
    assert "GGUF" in client.audit()["error"]
