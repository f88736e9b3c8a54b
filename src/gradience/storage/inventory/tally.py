"""Counting inodes for one thing: what it takes, what it shares, what deleting it would free.

The kernel says of each inode how many names it has. An inode all of whose names belong to the
thing is freed with it; one with a name elsewhere is not, wherever that name may be.
"""

from collections.abc import Iterable, Sequence

from gradience.storage.inventory.scan import Directory, File

BLOCK = 512  # of st_blocks, whatever the file system's own block is (POSIX leaves it open; all do)


class Tally:
    """A running count for one entry.

    Attributes
    ----------
    files : int
        Distinct regular files.
    inodes : int
        Names that deleting the entry would remove: files, directories, links.
    logical : int
        Bytes by size.
    mtime, atime : float
        The newest of a regular file; 0.0 without one.
    """

    __slots__ = ("_hard", "_held", "_plain", "atime", "files", "inodes", "logical", "mtime")

    def __init__(self) -> None:
        self._plain = 0  # blocks that only this entry reaches
        self._held = 0  # blocks that another entry reaches too
        self._hard: dict[tuple[int, int], list[int]] = {}  # blocks, names in all, names seen
        self.files = self.inodes = self.logical = 0
        self.mtime = self.atime = 0.0

    def add_dir(self, directory: Directory) -> None:
        """Add a directory, and what is in it but for the directories."""
        self._add_dirs((directory,))

    def add_tree(self, directory: Directory) -> "Tally":
        """Add a directory and everything below it; return the tally."""
        found = [directory]
        for one in found:  # which grows meanwhile
            found += one.dirs
        self._add_dirs(found)
        return self

    def _add_dirs(self, directories: Sequence[Directory]) -> None:
        # Each directory of a full cache comes by four times: what is added up is local.
        mtime, atime, blocks, files, names, size = self.mtime, self.atime, 0, 0, len(directories), 0
        for one in directories:
            blocks += one.blocks + one.file_blocks + one.link_blocks
            files += one.file_count
            names += one.link_count
            size += one.file_size
            if one.newest_mtime > mtime:  # noqa: PLR1730 - max() takes twice as long
                mtime = one.newest_mtime
            if one.newest_atime > atime:  # noqa: PLR1730
                atime = one.newest_atime
            for file in one.hard:
                self._add_hard(file, one.dev)
        self.mtime, self.atime = mtime, atime
        self._plain += blocks
        self.files += files
        self.inodes += files + names
        self.logical += size

    def add_file(self, file: File, dev: int, *, kept: bool = False) -> None:
        """Add one regular file; `kept` if another entry reaches it too and it would stay."""
        self.add_files((file,), dev, kept=kept)

    def add_untimed(self, file: File, dev: int, *, kept: bool = False) -> None:
        """Add a file whose own reads and writes say nothing of the use of the entry: notes."""
        times = self.mtime, self.atime
        self.add_files((file,), dev, kept=kept)
        self.mtime, self.atime = times

    def take_times(self, *others: "Tally") -> None:
        """Let the times be the newest of others', if any of these has one."""
        if any(other.mtime for other in others):
            self.mtime = max(other.mtime for other in others)
            self.atime = max(other.atime for other in others)

    def add_files(self, files: Iterable[File], dev: int, *, kept: bool = False) -> None:
        """Add regular files of one device."""
        mtime, atime, count, blocks, size = self.mtime, self.atime, 0, 0, 0
        for file in files:
            if file.mtime > mtime:  # noqa: PLR1730 - max() takes twice as long
                mtime = file.mtime
            if file.atime > atime:  # noqa: PLR1730
                atime = file.atime
            if file.nlink > 1 and not kept:
                self._add_hard(file, dev)
            else:
                count += 1
                blocks += file.blocks
                size += file.size
        self.mtime, self.atime = mtime, atime
        self.files += count
        self.logical += size
        if kept:
            self._held += blocks
        else:
            self._plain += blocks
            self.inodes += count

    def add_names(self, names: int, blocks: int) -> None:
        """Add directories or links of which only these numbers are known."""
        self.inodes += names
        self._plain += blocks

    def add_link(self, blocks: int, *, kept: bool = False) -> None:
        """Add a link that lies elsewhere; `kept` if another entry needs it too."""
        if kept:
            self._held += blocks
        else:
            self.add_names(1, blocks)

    @property
    def physical_bytes(self) -> int:
        """Bytes on disk, each inode once."""
        return BLOCK * (self._plain + self._held + sum(b for b, _, _ in self._hard.values()))

    @property
    def shared_bytes(self) -> int:
        """The part that something else reaches too."""
        return BLOCK * (self._held + sum(b for b, n, seen in self._hard.values() if seen < n))

    @property
    def frees_bytes(self) -> int:
        """What deleting it would give back."""
        return self.physical_bytes - self.shared_bytes

    def join(self, other: "Tally") -> None:
        """Add another tally; an inode with names in both is counted once."""
        self._plain += other._plain
        self._held += other._held
        self.files += other.files
        self.inodes += other.inodes
        self.logical += other.logical
        self.mtime = max(self.mtime, other.mtime)
        self.atime = max(self.atime, other.atime)
        for key, (blocks, names, seen) in other._hard.items():
            known = self._hard.setdefault(key, [blocks, names, 0])
            known[2] += seen

    def _add_hard(self, file: File, dev: int) -> None:
        known = self._hard.get((dev, file.ino))
        self.inodes += 1
        if known is None:
            self._hard[(dev, file.ino)] = [file.blocks, file.nlink, 1]
            self.files += 1
            self.logical += file.size
        else:
            known[2] += 1
