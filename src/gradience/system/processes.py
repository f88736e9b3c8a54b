"""What identifies a process to others that read of it in a file, and whether it still runs.

A number alone does not: containers count their own, and a number is given out again. So a process
is named by its number, its host name with the namespace in which the number counts, and the boot
and tick at which it began: the words of `filelock` (since 4.0), which the Hub's client reads too.
"""

import os
import socket
from pathlib import Path

_FIRST_NAMESPACE = 0xEFFFFFFC  # PROC_PID_INIT_INO, linux/proc_ns.h: outside of every container
_START = 19  # starttime among the fields behind the name in /proc/PID/stat, proc(5)


def here() -> str:
    """The host name, with the namespace of process numbers where it is a container's own."""
    name = socket.gethostname()
    try:
        namespace = Path("/proc/self/ns/pid").stat().st_ino
    except OSError:
        return name
    return name if namespace == _FIRST_NAMESPACE else f"{name}?pidns-{namespace:x}"


def start_of(pid: int) -> int | None:
    """The boot of the machine and the tick at which a process began, in one number.

    Returns
    -------
    int or None
        The id of the boot times 2**64, plus the tick; None where the system does not tell.
    """
    try:
        if os.readlink("/proc/self") != str(os.getpid()):  # noqa: PTH115 - of another namespace
            return None
        fields = Path(f"/proc/{pid}/stat").read_bytes().rpartition(b")")[2].split()
        return _boot() << 64 | int(fields[_START])
    except (OSError, IndexError, ValueError):
        return None


def runs(pid: int, host: str, start: int | None = None) -> bool | None:
    """Whether a process that was named in a file still runs; None where nobody here can tell.

    Parameters
    ----------
    pid : int
    host : str
        As `here` gives it, or a bare host name.
    start : int, optional
        As `start_of` gives it.

    Examples
    --------
    >>> runs(os.getpid(), here()), runs(1, "another-host")
    (True, None)
    >>> runs(os.getpid(), here(), 1)
    False
    """
    boot = 0 if start is None else start >> 64
    if host != here() or boot not in (0, _boot()):
        return None  # of another host or container, or this one before it was started anew
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return None if start is None and _counted_inside(pid) else False
    except (OSError, OverflowError):
        pass
    now = start_of(pid)
    return start is None or now is None or now % 2**64 == start % 2**64


def _boot() -> int:
    try:
        text = Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii")
        return int(text.strip().replace("-", ""), 16)
    except (OSError, ValueError):
        return 0


def _counted_inside(pid: int) -> bool:
    """Whether a container of this machine has a process of that number.

    Whoever writes a bare host name may be in a container that has the name of its machine.
    """
    for status in Path("/proc").glob("[0-9]*/status"):
        try:
            lines = status.read_bytes().split(b"\n")
        except OSError:
            continue  # it ended
        numbers = next((line.split()[1:] for line in lines if line.startswith(b"NSpid:")), [])
        if len(numbers) > 1 and numbers[-1] == str(pid).encode():
            return True
    return False
