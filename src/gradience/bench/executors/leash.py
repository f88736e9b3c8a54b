"""A trial that does not outlive its driver: `python -m gradience.bench.executors.leash ARG...`.

The driver holds the other end of standard input and never writes. When it goes, by whatever signal,
the read ends, and the trial ends with all it started: a second driver finds nobody at work.
"""

import os
import runpy
import signal
import sys
from threading import Thread

from gradience.bench.executors.executor import TRIAL_MODULE


def hold(descriptor: int) -> None:
    """End this process's group as soon as nobody holds the other end of a pipe."""

    def watch() -> None:
        while os.read(descriptor, 1024):
            pass
        os.killpg(0, signal.SIGKILL)

    Thread(target=watch, name="leash", daemon=True).start()


if __name__ == "__main__":
    # A copy, and /dev/null in its place: a library that reads standard input must not end us.
    held = os.dup(0)
    null = os.open(os.devnull, os.O_RDONLY)
    os.dup2(null, 0)
    os.close(null)
    hold(held)
    sys.argv[0] = TRIAL_MODULE
    runpy.run_module(TRIAL_MODULE, run_name="__main__", alter_sys=True)
