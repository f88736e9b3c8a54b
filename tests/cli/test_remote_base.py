"""`gradience audit --base-model` with a base on the Hub: a process, a terminal, signals."""

import io
import json
import os
import pty
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from threading import Event
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import save, save_file

from factories_disks import tmpfs
from gradience.units import format_size
from hub_server import COMMIT, WELL, Asked, Behaviour, Hub, Repo, serve

BLOCKS = 6
SIDE = 256
NBYTES = SIDE * SIDE * 4


def tensors() -> dict[str, np.ndarray]:
    rng = np.random.default_rng(0)
    return {
        f"model.layers.{at}.self_attn.q_proj.weight": rng.standard_normal(
            (SIDE, SIDE), dtype=np.float32
        )
        for at in range(BLOCKS)
    }


def checkpoint() -> bytes:
    import torch  # noqa: PLC0415 - only where a checkpoint is made

    held = io.BytesIO()
    torch.save({name: torch.from_numpy(array) for name, array in tensors().items()}, held)
    return held.getvalue()


def write_adapter(path: Path) -> None:
    rng = np.random.default_rng(1)
    stem = "base_model.model.model.layers.{}.self_attn.q_proj.lora_{}.weight"
    factors = {
        stem.format(at, part): rng.standard_normal(
            (2, SIDE) if part == "A" else (SIDE, 2), dtype=np.float32
        )
        for at in range(BLOCKS)
        for part in "AB"
    }
    path.mkdir()
    save_file(factors, path / "adapter_model.safetensors")
    config = {"peft_type": "LORA", "r": 2, "lora_alpha": 2, "target_modules": ["q_proj"]}
    (path / "adapter_config.json").write_text(json.dumps(config))


@dataclass
class Machine:
    """A home that the command may write to, and a Hub beside it."""

    hub: Hub
    home: Path

    def command(self, *args: str) -> dict[str, Any]:
        if not self.adapter.exists():
            write_adapter(self.adapter)
        return {
            "args": [sys.executable, "-m", "gradience", "audit", str(self.adapter), *args],
            "cwd": self.home,
            "env": {
                **{k: v for k, v in os.environ.items() if not k.startswith("HF_")},
                "HOME": str(self.home),
                "GRADIENCE_CACHE_DIR": str(self.home / "cache"),
                "HF_ENDPOINT": self.hub.url,
                "HF_HOME": str(self.home / "hf"),
                "HF_HUB_DISABLE_XET": "1",
                "NO_PROXY": "127.0.0.1,localhost",
                "TMPDIR": str(self.home),
                "COLUMNS": "200",
            },
        }

    @property
    def adapter(self) -> Path:
        return self.home / "adapter"

    def run(self, *args: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            **self.command("--base-model", "org/m", *args),
            capture_output=True,
            text=True,
            check=False,
            timeout=60,
            stdin=subprocess.DEVNULL,
        )

    def remembered(self) -> int:
        """Norms in the cache entry of the base."""
        entries = list((self.home / "cache" / "base_norms").glob("*.json"))
        return sum(len(json.loads(e.read_text())["content"]["norms"]) for e in entries)

    def written(self) -> int:
        """Bytes of all files in the home, the adapter apart."""
        files = (p for p in self.home.rglob("*") if p.is_file() and self.adapter not in p.parents)
        return sum(p.stat().st_size for p in files)


@pytest.fixture
def machine(tmp_path: Path) -> Iterator[Machine]:
    with serve(cdn=True, org__m=Repo({"model.safetensors": save(tensors())})) as hub:
        yield Machine(hub=hub, home=tmp_path)


def test_an_audit_beside_a_base_on_the_hub_needs_no_disk(machine: Machine) -> None:
    done = machine.run("--json")
    assert done.returncode == 0, done.stderr
    assert done.stderr == (
        f"reading {format_size(BLOCKS * NBYTES)}, {BLOCKS} of {BLOCKS} tensors of base model org/m,"
        " over the network; none of it is written\n"
    )
    content = json.loads(done.stdout)["content"]
    assert content["base"]["revision"] == COMMIT
    layers = content["layers"]
    assert [layer["metrics"]["udr"] > 0 for layer in layers] == [True] * BLOCKS
    assert machine.remembered() == BLOCKS
    assert machine.written() < NBYTES // 4
    assert not (machine.home / "hf").exists()


def test_max_download_refuses_first(machine: Machine) -> None:
    refused = machine.run("--max-download", "1MB")
    assert refused.returncode == 5
    assert "1.57 MB would come over the network, 573 KB more than the 1.00 MB" in refused.stderr
    assert "hint: Allow it with --max-download 2MB" in refused.stderr
    assert not any(asked.has_range for asked in machine.hub.asked)
    assert machine.run("--max-download", "2MB").returncode == 0
    assert machine.run("--max-download", "lots").returncode == 2


@pytest.mark.parametrize("how", [signal.SIGINT, signal.SIGKILL])
def test_a_run_that_is_stopped_keeps_what_it_measured(
    machine: Machine, how: signal.Signals
) -> None:
    """Of six tensors the fourth does not come: three are measured when the signal does."""
    never = Event()
    size = len(machine.hub.repos["org/m"].files["model.safetensors"])
    fourth = size - (BLOCKS - 3) * NBYTES

    def stall(asked: Asked) -> Behaviour:
        # By its place and not by its turn: small tensors are asked for several at a time.
        late = asked.has_range and int(asked.span.removeprefix("bytes=").split("-")[0]) >= fourth
        return Behaviour(hold=never) if late else WELL

    machine.hub.misbehave = stall
    process = subprocess.Popen(
        **machine.command("--base-model", "org/m"), stderr=subprocess.PIPE, text=True
    )
    try:
        deadline = time.monotonic() + 30
        while machine.remembered() < 3 and time.monotonic() < deadline:
            time.sleep(0.02)
        process.send_signal(how)
        started = time.monotonic()
        _, errors = process.communicate(timeout=30)
    finally:
        never.set()
        process.kill()
    assert time.monotonic() - started < 5
    assert machine.remembered() == 3
    if how is signal.SIGINT:
        assert errors.endswith("stopped.\n")
        assert process.returncode == 130

    machine.hub.misbehave = lambda asked: WELL
    machine.hub.forget()
    assert machine.run().returncode == 0
    assert sum(asked.has_range for asked in machine.hub.asked) == BLOCKS - 3


def test_a_header_that_does_not_come_holds_back_no_exit(machine: Machine) -> None:
    never = Event()
    machine.hub.misbehave = lambda asked: Behaviour(hold=never) if asked.has_content else WELL
    process = subprocess.Popen(**machine.command("--base-model", "org/m"))
    try:
        assert machine.hub.halfway.wait(30)
        process.send_signal(signal.SIGINT)
        assert process.wait(timeout=5) == 130
    finally:
        never.set()
        process.kill()


def test_a_checkpoint_is_refused_where_nobody_can_answer_and_taken_with_yes(
    machine: Machine,
) -> None:
    machine.hub.repos["org/m"] = Repo({"pytorch_model.bin": checkpoint(), "config.json": b"{}"})
    refused = machine.run()
    assert refused.returncode == 5
    assert "pytorch_model.bin of 1.58 MB would be downloaded into" in refused.stderr
    assert "hint: Add --yes" in refused.stderr
    limited = machine.run("--yes", "--max-download", "1MB")
    assert limited.returncode == 5
    assert machine.hub.fetched() == []

    taken = machine.run("--yes")
    assert taken.returncode == 0, taken.stderr
    assert "can be written" in taken.stderr
    assert machine.remembered() == BLOCKS
    blobs = list((machine.home / "hf" / "hub" / "models--org--m" / "blobs").iterdir())
    assert len(blobs) == 2
    # The next one finds it in the cache, and need not ask.
    assert machine.run().returncode == 0


@pytest.mark.root
def test_a_checkpoint_that_does_not_fit_is_refused_whatever_was_said(machine: Machine) -> None:
    machine.hub.repos["org/m"] = Repo({"pytorch_model.bin": checkpoint()})
    with tmpfs(machine.home / "hf", "size=1m"):
        done = machine.run("--yes")
    assert done.returncode == 5
    assert "it does not fit" in done.stderr
    assert "1.05 MB can be written" in done.stderr
    assert machine.hub.fetched() == []


def on_a_terminal(machine: Machine, *args: str, answer: str) -> tuple[int, str]:
    """Run with a terminal for everything; the answer is typed when a question is there."""
    terminal, its_end = pty.openpty()
    process = subprocess.Popen(
        **machine.command("--base-model", "org/m", *args),
        stdin=its_end,
        stdout=its_end,
        stderr=its_end,
        start_new_session=True,
    )
    os.close(its_end)
    seen, answered = "", False
    # Reading fails when the other end is closed: the process is over.
    with suppress(OSError):
        while data := os.read(terminal, 65536):
            seen += data.decode(errors="replace")
            if "Download? [y/N]" in seen and not answered:
                os.write(terminal, f"{answer}\n".encode())
                answered = True
    os.close(terminal)
    return process.wait(timeout=60), seen


@pytest.mark.parametrize(("answer", "code"), [("y", 0), ("n", 5)])
def test_on_a_terminal_a_checkpoint_is_asked_for(machine: Machine, answer: str, code: int) -> None:
    machine.hub.repos["org/m"] = Repo({"pytorch_model.bin": checkpoint()})
    status, seen = on_a_terminal(machine, answer=answer)
    assert (status, "can be written" in seen) == (code, True), seen
    assert machine.hub.fetched() == (["pytorch_model.bin"] if code == 0 else [])


def test_on_a_terminal_bytes_and_rate_are_shown(machine: Machine) -> None:
    machine.hub.misbehave = lambda asked: Behaviour(seconds=0.15) if asked.has_range else WELL
    status, seen = on_a_terminal(machine, answer="")
    assert status == 0, seen
    assert "bytes of the base" in seen
    assert "base norms" in seen
    assert "/1.6 MB" in seen
    assert "MB/s" in seen or "kB/s" in seen
