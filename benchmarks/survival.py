"""What becomes of a training run whose disk fills up: with the guard and without it.

    python benchmarks/survival.py                 # as root: every disk that this machine can mount
    python benchmarks/survival.py --disk tmpfs    # or btrfs, fuse, shim
    python benchmarks/survival.py --quick         # one setting on each disk

Each line is a real Trainer on a real limited file system. Something fills it at a given moment;
then space is freed and the same program is run again with `resume_from_checkpoint=True`. The
weights and the loss it ends with are compared, bit for bit, with those of a run that nobody
disturbed. The shim needs no mount: preloaded, it refuses what a program writes after so many bytes.
"""

import argparse
import contextlib
import errno
import json
import multiprocessing
import os
import re
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

# The disks are those of the tests.
sys.path.append(str(Path(__file__).parents[1] / "tests"))

import factories_disks
import survival_run
from survival_run import FILLER, Spec
from survival_run import main as run_main

MB = 2**20
SETTINGS = {
    "full, limit none": {},
    "full, limit 1": {"limit": 1},
    "full, limit 2": {"limit": 2},
    "full, limit 2, best": {"limit": 2, "best": True},
    "full, limit 1, bf16": {"limit": 1, "bf16": True},
    "adapter, limit 1": {"limit": 1, "adapter": True},
    "adapter, limit 2, best": {"limit": 2, "best": True, "adapter": True},
}
PRETRAINED = {
    "MiniLM full, limit 1": {"model": "minilm", "limit": 1},
    "MiniLM full, limit 2, best": {"model": "minilm", "limit": 2, "best": True},
    "MiniLM adapter, limit 1": {"model": "minilm", "limit": 1, "adapter": True},
}
FAULTS = {
    "first save": {"fault": "fill", "at_step": 2, "leave": 0.1},
    "third save": {"fault": "fill", "at_step": 6, "leave": 0.1},
    "in optimizer.pt": {"fault": "fill", "at_step": 6, "leave": 0.6},
    "before rotation": {"fault": "fill", "at_step": 4, "leave": 0.95},
    "log write": {"fault": "log", "at_step": 5, "leave": 0.0},
    "datasets.map": {"fault": "map", "at_step": 5, "leave": 0.02},
    "no inodes": {"fault": "inodes", "at_step": 6},
    "kill -9 in save": {"fault": "kill", "at_step": 4},
}
DISKS = ("btrfs", "tmpfs", "fuse", "shim")
# What `survival_run` imports. By these names, not by its own: a fork server of Python 3.11 looks
# for modules in its own path alone, and says nothing where it finds none.
HEAVY = [
    "datasets",
    "peft",
    "transformers.trainer",
    "transformers.models.bert.modeling_bert",
    "gradience.vnext.integrations.hf",
]
_TWO = ("full, limit 1", "adapter, limit 1")
_BYTES = tuple(name for name in FAULTS if name != "no inodes")
_SAVES = ("first save", "third save", "in optimizer.pt", "before rotation")
_KILLED = "kill -9 in save"
MATRIX: tuple[tuple[str, Iterable[str], Iterable[str]], ...] = (
    ("btrfs", SETTINGS, _BYTES),
    ("tmpfs", _TWO, FAULTS),  # counts inodes
    ("fuse", _TWO, _BYTES),
    ("shim", _TWO, _SAVES),
    ("btrfs", ("MiniLM full, limit 1",), ("first save", "in optimizer.pt", "log write", _KILLED)),
    ("btrfs", ("MiniLM full, limit 2, best",), ("third save",)),
    ("btrfs", ("MiniLM adapter, limit 1",), ("first save", _KILLED)),
    ("tmpfs", ("MiniLM full, limit 1",), ("third save",)),
    ("fuse", ("MiniLM full, limit 1",), ("before rotation",)),
    ("shim", ("MiniLM full, limit 1",), ("in optimizer.pt",)),
)
"""What is tried: on a disk, with some settings, some faults."""


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """What became of one run, and of the resume after space was freed."""

    ended: str
    resumed: str
    survived: bool


@dataclass(frozen=True, kw_only=True)
class Row:
    """One line of the table."""

    disk: str
    setting: str
    fault: str
    without: Outcome
    guarded: Outcome


@contextlib.contextmanager
def disk(kind: str, where: Path, size: int) -> Iterator[Path]:
    """A directory that takes `size` bytes and then refuses; what it was made of is removed."""
    makers = {
        "btrfs": lambda: factories_disks.btrfs_with_quota(
            where, size, image=max(256 * MB, 3 * size)
        ),
        "tmpfs": lambda: factories_disks.tmpfs(where, f"size={size},nr_inodes=400"),
        "fuse": lambda: factories_disks.fuse_with_quota(where, size),
        "shim": lambda: contextlib.nullcontext(where),
    }
    try:
        with makers[kind]() as place:
            yield place
    finally:
        for path in where.parent.glob(f"{where.name}*"):
            shutil.rmtree(path) if path.is_dir() else path.unlink()


class Lab:
    """Where runs are made, disturbed, and made again.

    The libraries are imported once, in a process from which each run is forked.

    Parameters
    ----------
    work : Path
        A directory on a disk that does not fill up.
    """

    def __init__(self, work: Path) -> None:
        self.work = work
        self._context = multiprocessing.get_context("forkserver")
        self._context.set_forkserver_preload(HEAVY)
        self._calm: dict[Spec, dict[str, Any]] = {}

    def row(self, kind: str, setting: str, fault: str) -> Row:
        """One fault on one disk, without the guard and with it."""
        chosen = {**SETTINGS, **PRETRAINED}[setting] | FAULTS[fault]
        spec = Spec(out="", report=str(self.work / "report.json"), **chosen)
        without, guarded = (self._outcome(kind, replace(spec, guarded=g)) for g in (False, True))
        return Row(disk=kind, setting=setting, fault=fault, without=without, guarded=guarded)

    def run(self, spec: Spec, preloaded: Mapping[str, str] | None = None) -> dict[str, Any]:
        """What a run reported, or how it died.

        `preloaded` is the environment of a process of its own.
        """
        report = Path(spec.report)
        report.unlink(missing_ok=True)
        if preloaded:
            command = [sys.executable, survival_run.__file__, json.dumps(asdict(spec))]
            environ = os.environ | preloaded
            done = subprocess.run(command, env=environ, check=False, capture_output=True)
            code = done.returncode
        else:
            process = self._context.Process(target=run_main, args=(spec,))
            process.start()
            process.join()
            code = process.exitcode or 0
        if not report.exists():
            return {"died": "killed" if code == -9 else f"exit {code}"}
        return dict(json.loads(report.read_text()))

    def shim(self, spec: Spec) -> dict[str, str]:
        """The environment in which a run can write what its fault leaves, and no more."""
        written = spec.at_step // spec.save_steps - 1 + spec.leave
        return {
            "LD_PRELOAD": str(factories_disks.preloadable(self.work)),
            "QB_DIR": spec.out,
            "QB_BYTES": str(round(written * spec.checkpoint_bytes)),
            "QB_ERRNO": str(errno.EDQUOT),
        }

    def undisturbed(self, spec: Spec) -> dict[str, Any]:
        """The same run where nothing goes wrong, and the size of its checkpoints."""
        out = self.work / "calm"
        calm = replace(spec, out=str(out), guarded=False, fault="", at_step=0, leave=0.0)
        if calm not in self._calm:
            found = self.run(calm)
            if "died" in found:
                raise RuntimeError(f"the undisturbed run died: {found['died']}; see {spec.report}")
            folder = next(out.glob("checkpoint-*"))
            size = sum(p.stat().st_size for p in folder.rglob("*") if p.is_file())
            self._calm[calm] = found | {"bytes": size}
            shutil.rmtree(out)
        return self._calm[calm]

    def _outcome(self, kind: str, spec: Spec) -> Outcome:
        calm = self.undisturbed(spec)
        with disk(kind, self.work / "disk", 24 * MB + 6 * calm["bytes"]) as place:
            out = place / "out"
            spec = replace(spec, out=str(out), checkpoint_bytes=calm["bytes"])
            if kind == "shim":
                first = self.run(replace(spec, fault=""), self.shim(spec))
            else:
                first = self.run(spec)
            wipe(out)
            start = newest(out)
            second = self.run(replace(spec, fault="", resume=start > 0))
        ended = first.get("died") or ("stops by itself" if first["stopped"] else "completes")
        if "died" in second:
            return Outcome(ended=ended, resumed=f"dies: {second['died']}", survived=False)
        same = all(second[name] == calm[name] for name in ("weights", "loss"))
        words = f"from step {start}" if start else "from the start"
        if not same:
            words += ", to ANOTHER end"
        return Outcome(ended=ended, resumed=words, survived=same)


def wipe(out: Path) -> None:
    """Free what filled the disk, as a user would."""
    for pattern in (f"{FILLER}*", "map-*", "tmp*", "log.jsonl"):
        for path in out.glob(pattern):
            shutil.rmtree(path) if path.is_dir() else path.unlink()


def newest(out: Path) -> int:
    """The step of the checkpoint that `resume_from_checkpoint=True` would choose; 0 for none."""
    return max((int(p.name.rpartition("-")[2]) for p in out.glob("checkpoint-*")), default=0)


def cells(arguments: argparse.Namespace) -> Iterator[tuple[str, str, str]]:
    """Disk, setting and fault of every line that was asked for."""
    asked = ["full, limit 1"] if arguments.quick else arguments.setting
    for kind, settings, faults in MATRIX:
        for setting in settings:
            for fault in faults:
                wanted = ((kind, arguments.disk), (setting, asked), (fault, arguments.fault))
                if all(not some or name in some for name, some in wanted):
                    yield kind, setting, fault


def table(rows: list[Row]) -> str:
    """The table of docs/survive.md."""
    lines = [
        "| disk | run | fault | without the guard | resumes | with the guard | resumes |",
        "|---|---|---|---|---|---|---|",
    ]
    for row in rows:
        before, after = row.without, row.guarded
        words = (row.disk, row.setting, row.fault, before.ended, before.resumed)
        cut = [short(word) for word in (*words, after.ended, after.resumed)]
        lines.append(f"| {' | '.join(cut)} |")
    lost = sum(not row.without.survived for row in rows)
    kept = sum(row.guarded.survived for row in rows)
    return "\n".join(
        [
            *lines,
            "",
            f"Without the guard {lost} of {len(rows)} runs could not be resumed.",
            f"With it {kept} of {len(rows)} were, and ended with the weights and the loss of a run "
            "that nobody disturbed, bit for bit.",
        ]
    )


def short(text: str) -> str:
    """The beginning of a message, for a cell: its words, without places and numbers."""
    text = text.replace("|", "/").replace("Error while serializing: I/O error: ", "")
    text = re.sub(r": \[Errno 2\].*|\[[^]]*\][ .]*| \(o.*|: '.*|(?<=unexpected pos) \d.*", "", text)
    return text if len(text) <= 46 else f"{text[:43]}..."


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--disk", action="append", choices=DISKS)
    parser.add_argument("--setting", action="append", choices=[*SETTINGS, *PRETRAINED])
    parser.add_argument("--fault", action="append", choices=list(FAULTS))
    parser.add_argument("--quick", action="store_true", help="one setting on each disk")
    parser.add_argument("--dir", help="where the disks are made")
    return parser.parse_args()


def main() -> None:
    arguments = parse()
    os.environ |= {"OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1", "TOKENIZERS_PARALLELISM": "false"}
    started = time.monotonic()
    rows = []
    with tempfile.TemporaryDirectory(dir=arguments.dir) as name:
        lab = Lab(Path(name))
        for cell in cells(arguments):
            rows.append(lab.row(*cell))
            print(*cell, "survives" if rows[-1].guarded.survived else "IS LOST", file=sys.stderr)
    print(table(rows))
    print(f"{time.monotonic() - started:.0f} s", file=sys.stderr)
    sys.exit(0 if all(row.guarded.survived for row in rows) else 1)


if __name__ == "__main__":
    main()
