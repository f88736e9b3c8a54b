"""The programs of a race, each a process that lives for all rounds: `race_workers.py ROLE`.

A line of JSON on stdin asks for one piece of work, after a delay; a line on stdout says what came
of it. `client`, `loader` and `reader` are real libraries at work, and notice what is wrong;
`changer` is Gradience, in a child that may be killed at a step.
"""

import hashlib
import json
import os
import signal
import sys
import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack, nullcontext, suppress
from pathlib import Path
from typing import Any

Work = Callable[..., dict[str, Any]]


def client() -> Work:
    """huggingface_hub downloads into a hub cache, and reads what is in it without a network."""
    from huggingface_hub import snapshot_download  # noqa: PLC0415 - each role has its own

    def work(hub: str, load: Sequence[tuple[str, str]], download: str = "") -> dict[str, Any]:
        if download:
            snapshot_download(download, revision="main", cache_dir=hub, max_workers=2)
        found = {}
        for repo, revision in load:
            path = snapshot_download(repo, revision=revision, cache_dir=hub, local_files_only=True)
            found[f"{repo}@{revision}"] = digests(Path(path))
        return {"loaded": found}

    return work


def loader() -> Work:
    """`datasets` builds Arrow files from a file of a hub cache, and reads them."""
    import datasets  # noqa: PLC0415

    datasets.disable_progress_bars()

    def work(data: str, cache: str) -> dict[str, Any]:
        rows = datasets.load_dataset("json", data_files=data, cache_dir=cache, split="train")
        return {"rows": list(rows["x"])}

    return work


def reader() -> Work:
    """safetensors maps weights, by names that must always lead to them, and one that may go."""
    from safetensors import safe_open  # noqa: PLC0415

    def is_right(opened: Any, digest: str) -> bool:
        return hashlib.sha256(opened.get_tensor("w").tobytes()).hexdigest() == digest

    def work(
        kept: tuple[str, str], may_go: tuple[str, str], *, seconds: float, hold: bool
    ) -> dict[str, Any]:
        looks, end = 0, time.monotonic() + seconds
        with ExitStack() as mapped:
            held = []
            for path, digest in (kept, may_go) if hold else ():
                with suppress(FileNotFoundError) if path == may_go[0] else nullcontext():
                    held.append((mapped.enter_context(safe_open(path, "numpy")), digest))
            while True:
                looks += 1
                with safe_open(kept[0], "numpy") as again:
                    if not all(is_right(*one) for one in ((again, kept[1]), *held)):
                        return {"error": "other bytes than were written"}
                if time.monotonic() > end:
                    return {"looks": looks, "held_what_may_go": len(held) == 2}
                time.sleep(0.004)

    return work


def changer() -> Work:
    """Gradience makes a plan and carries it out; with `die_at`, until that step."""
    import factories_races as races  # noqa: PLC0415

    def work(die_at: int | None = None, **what: Any) -> dict[str, Any]:
        if die_at is None:
            return races.change(**what)
        ours, theirs = os.pipe()
        child = os.fork()
        if child == 0:
            os.write(theirs, json.dumps(races.change(die_at=die_at, **what)).encode())
            os._exit(0)
        os.close(theirs)
        with os.fdopen(ours, "rb") as pipe:
            said = pipe.read()
        _, status = os.waitpid(child, 0)
        if os.WIFSIGNALED(status) and os.WTERMSIG(status) == signal.SIGKILL:
            return {"state": "killed"}
        return json.loads(said) if said else {"error": f"it ended with {status}"}

    return work


def digests(directory: Path) -> dict[str, str]:
    """SHA-256 of every file below a directory, by its name there."""
    return {
        str(path.relative_to(directory)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in directory.rglob("*")
        if not path.is_dir()
    }


ROLES = {"changer": changer, "client": client, "loader": loader, "reader": reader}


def main(role: str) -> None:
    work = ROLES[role]()
    print("{}", flush=True)
    for line in sys.stdin:
        asked = json.loads(line)
        time.sleep(asked.pop("after", 0.0))
        try:
            answer = work(**asked)
        except Exception as error:  # noqa: BLE001 - it is reported: what a user of that library would see
            answer = {"error": f"{type(error).__name__}: {error}"}
        print(json.dumps(answer), flush=True)


if __name__ == "__main__":
    main(sys.argv[1])
