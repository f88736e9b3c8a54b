"""A FUSE pass-through, as some network mounts are: SRC MNT [ERRNO of flock] [whose all looks]."""

import errno
import os
import sys
from typing import Any

import mfusepy as fuse

LOOKS = {"nobody's": ("st_uid", 65534, 0), "everybody's": ("st_mode", 0, 0o777)}
"""What a mount without owners, or without modes, says of everything: which fact, bits put to it."""
UNLINKED = "unlinked"
"""Looks of a mount where each name of a file has an inode number of its own, as with sshfs."""
STAT = ("st_mode", "st_nlink", "st_size", "st_uid", "st_gid", "st_blocks", "st_ino")


class PassThrough(fuse.Operations):
    use_ns = True

    def __init__(self, source: str, looks: str = "") -> None:
        self.source = source
        self.looks = looks

    def at(self, path: str) -> str:
        return self.source + path

    def getattr(self, path: str, fh: int | None = None) -> dict[str, Any]:
        try:
            found = os.lstat(self.at(path))
        except OSError as error:
            raise fuse.FuseOSError(error.errno) from error
        times = {f"st_{t}time": getattr(found, f"st_{t}time_ns") for t in "amc"}
        facts = {key: getattr(found, key) for key in STAT} | times
        if self.looks in LOOKS:
            key, value, bits = LOOKS[self.looks]
            facts[key] = value or facts[key] | bits
        return facts

    def readdir(self, path: str, fh: int) -> list[tuple[str, dict[str, Any], int]]:
        with os.scandir(self.at(path)) as found:
            below = [
                (entry.name, entry.inode(), entry.stat(follow_symlinks=False)) for entry in found
            ]
        known = [(name, {"st_ino": inode, "st_mode": s.st_mode}, 0) for name, inode, s in below]
        return [*((name, {"st_ino": 1, "st_mode": 0o40755}, 0) for name in (".", "..")), *known]

    def create(self, path: str, mode: int, fi: object = None) -> int:
        return os.open(self.at(path), os.O_RDWR | os.O_CREAT | os.O_TRUNC, mode)

    def open(self, path: str, flags: int) -> int:
        return os.open(self.at(path), flags & ~(os.O_APPEND | os.O_NOATIME))

    def read(self, path: str, size: int, offset: int, fh: int) -> bytes:
        return os.pread(fh, size, offset)

    def write(self, path: str, data: bytes, offset: int, fh: int) -> int:
        return os.pwrite(fh, data, offset)

    def truncate(self, path: str, length: int, fh: int | None = None) -> None:
        os.truncate(self.at(path), length)

    def unlink(self, path: str) -> None:
        os.unlink(self.at(path))

    def rename(self, old: str, new: str, *flags: object) -> None:
        os.rename(self.at(old), self.at(new))

    def link(self, target: str, source: str) -> None:
        os.link(self.at(source), self.at(target))

    def mkdir(self, path: str, mode: int) -> None:
        os.mkdir(self.at(path), mode)

    def rmdir(self, path: str) -> None:
        os.rmdir(self.at(path))

    def symlink(self, target: str, source: str) -> None:
        os.symlink(source, self.at(target))

    def readlink(self, path: str) -> str:
        return os.readlink(self.at(path))

    def chmod(self, path: str, mode: int) -> None:
        os.chmod(self.at(path), mode)

    def chown(self, path: str, uid: int, gid: int) -> None:
        os.chown(self.at(path), uid, gid, follow_symlinks=False)

    def utimens(self, path: str, times: tuple[int, int] | None = None) -> None:
        os.utime(self.at(path), ns=times, follow_symlinks=False)

    def release(self, path: str, fh: int) -> None:
        os.close(fh)


class Lockless(PassThrough):
    """With an answer to flock; without one the kernel sees to locks itself."""

    def __init__(self, source: str, refusal: int, looks: str) -> None:
        super().__init__(source, looks)
        self.refusal = refusal

    def flock(self, path: str, fh: int, how: int) -> int:
        raise fuse.FuseOSError(self.refusal)


def main(source: str, mount: str, refusal: str = "", looks: str = "") -> None:
    served = PassThrough(source, looks)
    if refusal:
        served = Lockless(source, getattr(errno, refusal), looks)
    # Else libfuse gives a file another inode number whenever the kernel is short of memory.
    kept = {"noforget": True, "use_ino": looks != UNLINKED}
    fuse.FUSE(served, mount, foreground=True, nothreads=False, allow_other=True, **kept)


if __name__ == "__main__":
    main(*sys.argv[1:])
