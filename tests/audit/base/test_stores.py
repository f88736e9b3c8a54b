"""A base model in an object store, through its own client and a store that speaks its protocol.

Skipped without them: pip install s3fs "moto[server]"; pip install gcsfs gcp-storage-emulator.
"""

import json
import os
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import save_file

from factories_bases import decoder_shapes, write_base

SHAPES = decoder_shapes(hidden=72)

pytestmark = pytest.mark.slow

# The client's package, the server's, how the server starts, and what clients are told.
MOTO = "from moto.server import main; import sys; main(['-H', '127.0.0.1', '-p', sys.argv[1]])"
GOOGLE = (
    "from gcp_storage_emulator.server import create_server; import sys;"
    "create_server('127.0.0.1', int(sys.argv[1]), in_memory=True).run()"
)
STORES = {
    "s3": ("s3fs", "moto", MOTO),
    "gs": ("gcsfs", "gcp_storage_emulator", GOOGLE),
}
PUT = """
import sys
from pathlib import Path
import fsspec
protocol, directory = sys.argv[1:]
fs = fsspec.filesystem(protocol)
if not fs.exists("bucket"):
    fs.mkdir("bucket")
for path in Path(directory).iterdir():
    fs.pipe_file(f"bucket/model/{path.name}", path.read_bytes())
"""


@dataclass(frozen=True, kw_only=True)
class Store:
    """A store on the loop-back interface, with a model in it."""

    protocol: str
    environ: Mapping[str, str] = field(repr=False)
    scratch: Path

    def put(self, directory: Path) -> None:
        arguments = [sys.executable, "-c", PUT, self.protocol, str(directory)]
        subprocess.run(arguments, check=True, env=dict(self.environ), capture_output=True)

    def run(self, *words: object, **environ: str) -> subprocess.CompletedProcess[str]:
        """`gradience`, as a user of the store runs it."""
        return subprocess.run(
            [sys.executable, "-m", "gradience", *map(str, words)],
            capture_output=True,
            text=True,
            check=False,
            cwd=self.scratch,
            env={**self.environ, **environ},
        )

    def norms(self, model: object, cache: str) -> tuple[dict[str, Any], str]:
        """The norms of a base, and what `measure` said."""
        own = {"GRADIENCE_CACHE_DIR": str(self.scratch / cache)}
        done = self.run("norms", "measure", model, **own)
        assert done.returncode == 0, done.stderr
        (path,) = (self.scratch / cache / "base_norms").glob("*.json")
        return json.loads(path.read_text())["content"], done.stdout


@pytest.fixture(params=list(STORES))
def store(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Store]:
    client, server, program = STORES[request.param]
    for package in (client, server):
        if find_spec(package) is None:
            pytest.skip(f"{package} is not installed")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    address = f"http://127.0.0.1:{port}"
    environ = {
        **{k: v for k, v in os.environ.items() if not k.startswith(("AWS_", "GOOGLE_"))},
        "AWS_ENDPOINT_URL": address,
        "AWS_ACCESS_KEY_ID": "loop",
        "AWS_SECRET_ACCESS_KEY": "back",
        "AWS_DEFAULT_REGION": "us-east-1",
        "STORAGE_EMULATOR_HOST": address,
        "NO_PROXY": "127.0.0.1,localhost",
        "GRADIENCE_CACHE_DIR": str(tmp_path / "cache"),
    }
    process = subprocess.Popen(
        [sys.executable, "-c", program, str(port)],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        env=environ,
    )
    try:
        _wait(process, port)
        write_base(tmp_path / "base", SHAPES)
        made = Store(protocol=request.param, environ=environ, scratch=tmp_path)
        made.put(tmp_path / "base")
        yield made
    finally:
        process.terminate()
        process.wait(10)


def _wait(process: "subprocess.Popen[bytes]", port: int) -> None:
    for _ in range(300):
        with socket.socket() as asked:
            if asked.connect_ex(("127.0.0.1", port)) == 0:
                return
        assert process.poll() is None, "the store did not start"
        time.sleep(0.1)
    raise AssertionError("the store did not start")


def test_a_base_in_a_store_has_the_norms_that_it_has_here(store: Store) -> None:
    address = f"{store.protocol}://bucket/model"
    here, _ = store.norms(store.scratch / "base", "here")
    there, said = store.norms(address, "there")
    assert there["norms"] == here["norms"]
    assert "0 B were read" not in said
    assert "0 B were read" in store.norms(address, "there")[1]
    assert "0 B were read" in store.norms(f"{address}/model.safetensors", "there")[1]


def test_a_base_that_was_written_anew_in_a_store_never_meets_old_norms(store: Store) -> None:
    """By the version that the store names: nothing is sampled, and nothing else changes."""
    address = f"{store.protocol}://bucket/model"
    old, _ = store.norms(address, "old")
    tensors = write_base(store.scratch / "base", SHAPES)
    name = next(iter(tensors))
    tensors[name][-1, -1] = np.nextafter(tensors[name][-1, -1], np.float32(9))
    save_file(tensors, store.scratch / "base" / "model.safetensors")
    store.put(store.scratch / "base")
    new, _ = store.norms(address, "new")
    assert new["fingerprint"] != old["fingerprint"]


def test_what_is_not_in_a_store_is_said_with_its_address(store: Store) -> None:
    for address in ("bucket/none", "bucket/none/model.safetensors", "no-bucket/model"):
        done = store.run("norms", "measure", f"{store.protocol}://{address}")
        assert done.returncode == 3, done.stderr
        assert f"{store.protocol}://{address}" in done.stderr
        assert "hint: " in done.stderr
        assert "Traceback" not in done.stderr
