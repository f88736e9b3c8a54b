"""Processes that read directories for this one.

Threads wait for each other: each call that looks at a name gives the interpreter's lock away and
stands in line for it again, which on a fast disk takes longer than the answer. Processes do not.
"""

import subprocess
import sys
from collections.abc import Sequence
from contextlib import suppress

from gradience.storage.inventory import listing as program
from gradience.storage.inventory.listing import Listing, listings


class Helper:
    """Reads directories in a process of its own; in this one where that does not start or dies.

    Parameters
    ----------
    command : sequence of str, optional
        What to start; by default this interpreter, as bare as it can be: nothing of the user's is
        imported, and it is there in 10 ms.
    """

    def __init__(self, command: Sequence[str] | None = None) -> None:
        self._process: subprocess.Popen[bytes] | None = None
        with suppress(OSError):
            self._process = subprocess.Popen(
                command or _this_interpreter(),
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.DEVNULL,
                process_group=0,  # Ctrl-C is for us, who end it
            )

    def read(self, asked: Sequence[tuple[str, bool]]) -> list[Listing]:
        """Read directories: their paths, and whether the names in them are wanted."""
        if self._process is not None:
            try:
                return _ask(self._process, asked)
            except (OSError, EOFError):
                self.close()
        return listings(asked)

    def close(self) -> None:
        """End the process; it only looks, so at any moment."""
        if self._process is not None:
            self._process.kill()
            # Not communicate(): a child that was forked meanwhile may hold its pipe open.
            with suppress(OSError), self._process:
                pass
            self._process = None


def _this_interpreter() -> list[str]:
    # Bare as it is it would not see PYTHONUTF8, and take names for others than we do. Where Python
    # is part of another program, its executable is that program, or not known: nothing starts then.
    utf8 = f"-Xutf8={sys.flags.utf8_mode}"
    executable = "" if getattr(sys, "frozen", False) else sys.executable or ""
    return [executable, "-I", "-S", utf8, program.__file__]


def _ask(process: "subprocess.Popen[bytes]", asked: Sequence[tuple[str, bool]]) -> list[Listing]:
    assert process.stdin is not None
    assert process.stdout is not None
    program.send(process.stdin, list(asked))
    found: list[Listing] = program.receive(process.stdout)
    return found
