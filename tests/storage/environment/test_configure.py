"""One process uses one disk: configured before the imports, or refused with the reason."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from gradience.storage.environment.variables import VARIABLES

BEFORE = """
import json, os, sys, tempfile
tempfile.gettempdir()
import gradience.storage
made = gradience.storage.configure(root=sys.argv[1])
import huggingface_hub.constants as hub
import torch.hub
found = {"hub": hub.HF_HUB_CACHE, "home": hub.HF_HOME, "token": hub.HF_TOKEN_PATH,
         "torch": torch.hub.get_dir(), "values": made.values, "tmp": tempfile.gettempdir()}
again = gradience.storage.configure(root=sys.argv[1])
assert again == made, "a second time is no conflict"
print(json.dumps(found))
"""

AFTER = """
import json, os, sys
import huggingface_hub.constants
import gradience.storage
from gradience.errors import UsageError
environ = dict(os.environ)
try:
    gradience.storage.configure(root=sys.argv[1], transfer=sys.argv[2])
except UsageError as error:
    print(json.dumps({"message": str(error), "remedy": error.remedy,
                      "unchanged": dict(os.environ) == environ,
                      "made": os.path.exists(sys.argv[1])}))
"""

LAZY = """
import sys
import gradience.storage
assert "gradience.storage.environment.in_process" not in sys.modules
from gradience.storage import configure
import gradience.storage.environment.in_process
assert callable(gradience.storage.configure)
assert "huggingface_hub" not in sys.modules
environ = {"HOME": sys.argv[1]}
made = configure(root=sys.argv[1] + "/r", platform="runpod", create=False, environ=environ)
assert environ["HF_HUB_CACHE"] == sys.argv[1] + "/r/hf_cache/hub", environ
import os
assert not os.path.exists(sys.argv[1] + "/r")
assert "HF_HUB_CACHE" not in os.environ
"""


@pytest.fixture
def process(tmp_path: Path):
    """Run a program with a home of its own and none of our variables."""

    def run(source: str, *arguments: str, **environ: str) -> subprocess.CompletedProcess[str]:
        kept = {k: v for k, v in os.environ.items() if k not in VARIABLES}
        done = subprocess.run(
            [sys.executable, "-c", source, *arguments],
            capture_output=True,
            text=True,
            check=False,
            cwd=tmp_path,
            env={**kept, "HOME": str(tmp_path / "home"), **environ},
        )
        assert done.returncode == 0, done.stderr
        return done

    return run


def test_libraries_imported_after_it_use_the_new_places(process, tmp_path: Path) -> None:
    pytest.importorskip("torch")
    found = json.loads(process(BEFORE, str(tmp_path / "disk")).stdout)
    values = found["values"]
    assert found["hub"] == values["HF_HUB_CACHE"]
    assert found["home"] == values["HF_HOME"]
    assert found["torch"] == values["TORCH_HOME"] + "/hub"
    assert found["tmp"] == values["TMPDIR"]
    assert found["token"] == str(tmp_path / "home/.cache/huggingface/token")
    assert all(str(tmp_path / "disk") in values[n] for n in ("HF_HOME", "HF_HUB_CACHE"))
    assert Path(values["HF_HUB_CACHE"]).is_dir()


def test_libraries_imported_before_it_are_named_with_both_halves(process, tmp_path: Path) -> None:
    said = json.loads(process(AFTER, str(tmp_path / "disk"), "auto").stdout)
    assert said["unchanged"]
    assert not said["made"]
    old = f"{tmp_path}/home/.cache/huggingface/hub"
    frozen, moving = said["message"].split("Would move:")
    assert f"huggingface_hub.constants.HF_HUB_CACHE = {old}" in frozen
    assert "torch.hub.get_dir()" in moving
    assert "Xet's staging" in moving
    assert "HF_TOKEN_PATH" not in frozen
    assert "before the first import" in said["remedy"]


def test_a_frozen_switch_is_named_too(process, tmp_path: Path) -> None:
    said = json.loads(process(AFTER, str(tmp_path / "disk"), "plain").stdout)
    assert "HF_HUB_DISABLE_XET = False (not True)" in said["message"]


def test_only_the_given_environment_is_changed_and_nothing_is_loaded(
    process, tmp_path: Path
) -> None:
    process(LAZY, str(tmp_path / "home"))
