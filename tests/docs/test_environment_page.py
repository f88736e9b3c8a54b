"""What docs/environment.md shows is what is printed, and no variable or platform is missing."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from gradience.storage.environment.platforms import PLATFORMS
from gradience.storage.environment.variables import VARIABLES

PAGE = Path(__file__).parents[2] / "docs" / "environment.md"


@pytest.mark.parametrize(
    ("kind", "arguments"),
    [("sh", ["--platform", "runpod", "--no-create"]), ("dockerfile", ["--format", "dockerfile"])],
)
def test_the_output_shown_is_real(kind: str, arguments: list[str], tmp_path: Path) -> None:
    if Path("/workspace").exists():
        pytest.skip("this machine has a /workspace of its own")
    known = {n for p in PLATFORMS.values() for n in p.variables} | set(VARIABLES)
    kept = {k: v for k, v in os.environ.items() if k not in known}
    done = subprocess.run(
        [sys.executable, "-m", "gradience", "env", *arguments],
        capture_output=True,
        text=True,
        check=True,
        cwd=tmp_path,
        env={**kept, "HOME": str(tmp_path), "SHELL": "/bin/bash"},
    )
    lines = [line for line in done.stdout.splitlines() if not line.startswith("# ")]
    text = PAGE.read_text(encoding="utf-8")
    (shown, *_) = re.findall(rf"^```{kind}\n(.*?)^```", text, flags=re.MULTILINE | re.DOTALL)
    assert shown.splitlines() == lines


@pytest.mark.parametrize("name", [*VARIABLES, *PLATFORMS])
def test_every_name_has_its_row(name: str) -> None:
    assert f"| `{name}` |" in PAGE.read_text(encoding="utf-8")
