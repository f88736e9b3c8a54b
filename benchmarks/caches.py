"""The synthetic hub cache of ../shared/tools/gen_cache.py, in both layouts."""

import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

GENERATOR = Path(__file__).parents[2] / "shared" / "tools" / "gen_cache.py"


def both_layouts(repos: int, directory: str | None) -> Iterator[tuple[Path, str]]:
    """Where one lies, and what its layout is called; removed once the next one is asked for."""
    if not GENERATOR.is_file():
        sys.exit("../shared/tools/gen_cache.py is not beside this checkout")
    for shared in (False, True):
        with tempfile.TemporaryDirectory(dir=directory) as name:
            command = [sys.executable, GENERATOR, name, "--repos", str(repos)]
            subprocess.run(
                [*command, *["--shared"] * shared], check=True, stdout=subprocess.DEVNULL
            )
            yield Path(name), "shared blobs" if shared else "blobs per repo"
