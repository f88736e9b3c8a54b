"""Run one command and print what it took, as JSON: seconds, CPU seconds, peak bytes, exit code.

    python -S benchmarks/measured.py COMMAND ARGUMENT...

A program of its own, because the kernel counts the memory of the process that starts a command
towards the peak of the command: this one holds ten megabytes, a benchmark a hundred and more.
"""

import json
import os
import subprocess
import sys
import time


def main(command: list[str]) -> None:
    start = time.perf_counter()
    child = subprocess.Popen(command, stdout=subprocess.DEVNULL)
    _, status, usage = os.wait4(child.pid, 0)
    seconds = time.perf_counter() - start
    child.returncode = os.waitstatus_to_exitcode(status)
    measured = {
        "seconds": seconds,
        "cpu_seconds": usage.ru_utime + usage.ru_stime,
        "peak_bytes": usage.ru_maxrss * (1 if sys.platform == "darwin" else 1024),
        "code": child.returncode,
    }
    print(json.dumps(measured))


if __name__ == "__main__":
    main(sys.argv[1:])
