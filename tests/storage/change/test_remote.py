"""Whether the Hub would give a revision back: only the Hub can say so."""

import os
import subprocess
import sys

import pytest

from hub_server import COMMIT, Repo, serve

ASK = f"""
from gradience.storage.change.remote import fates
print(*fates([("model", "org/m", "{COMMIT}")]).values())
"""


@pytest.mark.parametrize(
    ("page", "fate"), [("", "served"), ("<html>Log in</html>", "unknown"), ("{}", "unknown")]
)
def test_the_page_of_a_network_says_nothing_of_a_revision(page: str, fate: str) -> None:
    with serve(org__m=Repo(files={"model.safetensors": b""})) as hub:
        hub.page = page.encode()
        done = subprocess.run(
            [sys.executable, "-c", ASK],
            env={"PATH": os.environ["PATH"], "HF_ENDPOINT": hub.url},
            capture_output=True,
            text=True,
            check=False,
        )
    assert done.stdout.strip() == fate, done.stderr
