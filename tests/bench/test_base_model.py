"""Where the files of a base model are looked for."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from gradience.bench.base_model import base_directory
from gradience.bench.settings import ModelSettings
from gradience.errors import BaseModelError
from hub_server import COMMIT, Repo, serve


def test_a_directory_is_taken_as_it_is(tmp_path: Path) -> None:
    assert base_directory(ModelSettings(id=str(tmp_path))) == tmp_path


def test_a_directory_in_an_installed_package_is_found_without_importing_it() -> None:
    found = base_directory(ModelSettings(id="package:gradience/bench/tasks"))
    assert (found / "gsm8k.py").is_file()


@pytest.mark.parametrize(
    ("name", "says"),
    [
        ("package:no_such_package/model", "'no_such_package' is not installed"),
        ("package:gradience/no/such", "has no directory 'no/such'"),
        ("package:../etc", "is not installed"),
    ],
)
def test_a_package_that_has_no_model_is_refused(name: str, says: str) -> None:
    with pytest.raises(BaseModelError, match=says):
        base_directory(ModelSettings(id=name))


HUB = """
import sys
from gradience.bench.base_model import base_directory
from gradience.bench.settings import ModelSettings
from gradience.errors import BaseModelError

for name, revision in (("org/base", "v2"), ("org/none", None)):
    try:
        found = base_directory(ModelSettings(id=name, revision=revision))
        print(found.name, sorted(path.name for path in found.iterdir()))
    except BaseModelError as error:
        print(error)
"""


def ask(home: Path, url: str, **extra: str) -> list[str]:
    """The script above in a process whose client asks the server at `url`."""
    environ = {
        "HF_ENDPOINT": url,
        "HF_HOME": str(home),
        "HF_HUB_DISABLE_XET": "1",
        "HF_HUB_DISABLE_TELEMETRY": "1",
        "NO_PROXY": "127.0.0.1",
        **extra,
    }
    done = subprocess.run(
        [sys.executable, "-c", HUB],
        env={**os.environ, **environ},
        capture_output=True,
        text=True,
        check=True,
    )
    return done.stdout.splitlines()


def test_a_hub_model_is_fetched_at_its_revision_and_found_again_offline(tmp_path: Path) -> None:
    files = {"config.json": b"{}", "model.safetensors": b"x", "tf_model.h5": b"y" * 10}
    with serve(org__base=Repo(files=files, revisions=("main", "v2"))) as hub:
        first, refused = ask(tmp_path / "hf", hub.url)
        assert first == f"{COMMIT} ['config.json', 'model.safetensors']"
        assert "org/none is no directory here, and the Hub does not give it" in refused
        assert "tf_model.h5" not in hub.fetched()
        hub.page = b"{}"  # as a network answers that wants a login
        _, refused = ask(tmp_path / "hf", hub.url)
        assert "org/none is no directory here, and the Hub does not give it" in refused
    offline, _ = ask(tmp_path / "hf", "http://127.0.0.1:9", HF_HUB_OFFLINE="1")
    assert offline == first
