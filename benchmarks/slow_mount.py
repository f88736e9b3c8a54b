"""A directory seen through a mount that answers each request late, as a network volume does.

    python benchmarks/slow_mount.py SOURCE MOUNT 0.001      # a millisecond for each

Read-only, by FUSE (`pip install mfusepy`, Debian's libfuse2). Requests that are made side by side
wait side by side: what threads can win on such a volume, they win here.
"""

import os
import stat
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

_FACTS = ("st_mode", "st_nlink", "st_size", "st_uid", "st_gid", "st_blocks", "st_ino")


@contextmanager
def slow_mount(source: Path, mount: Path, seconds: float) -> Iterator[Path]:
    """Mount it, in a process of its own, for as long as the block lasts."""
    server = subprocess.Popen([sys.executable, __file__, source, mount, str(seconds)])
    try:
        for _ in range(200):
            if os.path.ismount(mount):
                break
            if server.poll() is not None:
                sys.exit("the slow mount did not start: it needs mfusepy, libfuse2 and /dev/fuse")
            time.sleep(0.05)
        yield mount
    finally:
        subprocess.run(["fusermount", "-uz", mount], check=False)
        server.wait(10)


def serve(source: str, mount: str, seconds: float) -> None:
    """Answer until it is unmounted."""
    import mfusepy  # noqa: PLC0415 - only for this benchmark

    class Slow(mfusepy.Operations):  # type: ignore[misc]
        use_ns = True

        def getattr(self, path: str, fh: int | None = None) -> dict[str, Any]:
            status = late(os.lstat, path)
            times = {f"st_{x}time": getattr(status, f"st_{x}time_ns") for x in "amc"}
            return {name: getattr(status, name) for name in _FACTS} | times

        def readdir(self, path: str, fh: int) -> list[tuple[str, dict[str, int], int]]:
            with late(os.scandir, path) as entries:
                return [(e.name, {"st_ino": e.inode(), "st_mode": kind(e)}, 0) for e in entries]

        def readlink(self, path: str) -> str:
            return late(os.readlink, path)

        def open(self, path: str, flags: int) -> int:
            return late(lambda p: os.open(p, flags), path)

        def read(self, path: str, size: int, offset: int, fh: int) -> bytes:
            return late(lambda _: os.pread(fh, size, offset), path)

        def release(self, path: str, fh: int) -> None:
            os.close(fh)

    def kind(entry: os.DirEntry[str]) -> int:
        if entry.is_symlink():
            return stat.S_IFLNK
        return stat.S_IFDIR if entry.is_dir() else stat.S_IFREG

    def late(call: Any, path: str) -> Any:
        time.sleep(seconds)
        try:
            return call(source + path)
        except OSError as error:
            raise mfusepy.FuseOSError(error.errno) from error

    mfusepy.FUSE(Slow(), mount, foreground=True, ro=True, use_ino=True, fsname="slow")


if __name__ == "__main__":
    serve(sys.argv[1], sys.argv[2], float(sys.argv[3]))
