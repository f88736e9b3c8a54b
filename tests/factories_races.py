"""One round of a race: the real client downloads a revision while an older one is cleaned away.

Both share a file, so the client may find the blob, and link to it, just as it goes.
"""

import os
import random
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from factories_caches import HubMaker, commit_of
from factories_changes import carry_out, clean_plan
from gradience import system
from hub_server import Hub, Repo

NEW = commit_of("b")
FILES = {"w.safetensors": b"w" * 300_000, "config.json": b"{}", "sub/v.bin": b"v" * 70_000}

# Downloads into each directory that a line names; then reads everything back without a network.
WORKER = """
import sys
from pathlib import Path
from huggingface_hub import snapshot_download
for line in sys.stdin:
    place = line.rstrip("\\n")
    try:
        snapshot_download("org/m", revision="main", cache_dir=place, max_workers=2)
        found = Path(snapshot_download("org/m", cache_dir=place, local_files_only=True))
        sizes = {str(f.relative_to(found)): len(f.read_bytes())
                 for f in found.rglob("*") if not f.is_dir()}
        print(sorted(sizes.items()), flush=True)
    except Exception as error:
        print("failed", type(error).__name__, error, flush=True)
"""
EXPECTED = str(sorted((name, len(data)) for name, data in FILES.items()))


def repo() -> Repo:
    """What the server has: the newer revision."""
    return Repo(FILES, commit=NEW)


@contextmanager
def client(hub: Hub, home: Path) -> Iterator["subprocess.Popen[str]"]:
    """A process with the real client in it."""
    kept = {k: v for k, v in os.environ.items() if not k.startswith("HF_")}
    own = {"HF_ENDPOINT": hub.url, "HF_HOME": str(home), "HF_HUB_DISABLE_XET": "1"}
    own |= {"HF_HUB_DISABLE_PROGRESS_BARS": "1", "NO_PROXY": "127.0.0.1"}
    with subprocess.Popen(
        [sys.executable, "-c", WORKER],
        env=kept | own,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    ) as process:
        try:
            yield process
        finally:
            process.kill()


def round_of(process: "subprocess.Popen[str]", place: Path, random_: random.Random) -> str:
    """Clean the old revision while the new one is downloaded; "" if nothing is broken."""
    hub = HubMaker(place)
    hub.add("org/m", "a", {**FILES, "old.bin": b"o" * 50_000}, ref="v1")
    then = time.time() - 86400
    for blob in (hub.repo("org/m") / "blobs").iterdir():
        os.utime(blob, (then, then))
    plan = clean_plan(hub.hub, revisions=[commit_of("a")], min_age=900)
    assert process.stdin is not None
    assert process.stdout is not None
    process.stdin.write(f"{place}\n")
    process.stdin.flush()
    time.sleep(random_.uniform(0.0, 0.06))
    carry_out(plan, holders=system.holders)
    answer = process.stdout.readline().strip()
    if answer != EXPECTED:
        return answer or "the client died"
    dangling = [p for p in place.glob("models--*/snapshots/**/*") if not p.exists()]
    return f"dangling: {dangling}" if dangling else ""
