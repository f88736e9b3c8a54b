"""What a platform is: how it announces itself, where its big disk is mounted, what a stop wipes."""

from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    from gradience.system.records import Mount

Style = Literal["cloud", "local", "docker"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Candidate:
    """A directory that may be the big disk of a platform.

    Attributes
    ----------
    path : str
        Absolute, or `$NAME`: the value of a variable. `*` stands for one level of names.
    mounted : bool
        Only where something is mounted at, or for a variable above, this path: a directory of
        that name on a machine without the volume is not the volume.
    kind : str
        What it is, for the sentence: "the network volume", "the scratch disk".
    """

    path: str
    kind: str
    mounted: bool = True


@dataclass(frozen=True, slots=True, kw_only=True)
class Platform:
    """One kind of machine.

    Attributes
    ----------
    title : str
        Its name, as its users write it.
    variables : tuple of str
        Environment variables that hint at it; any one is enough.
    marks : tuple of str
        Paths whose existence, or a mount at or below which, hints at it.
    devices : tuple of str
        Part of the name of a mounted device that hints at it: variables are missing in a session
        that sshd began.
    roots : tuple of Candidate
        The big disk, best first; the first that is measured to be there is taken.
    any_volume : bool
        Where no candidate is there, the roomiest mounted volume is taken: platforms on which the
        user chooses the path.
    local : tuple of str
        Disks of the machine itself for compile caches, best first.
    style : str
        Names below the root: `cloud` (hf_cache/hub, torch_cache), `local` and `docker` (hub,
        torch).
    home : str
        Home directory there, for text made on another machine; empty: that of this user.
    keeps : str
        What survives a stop, for the reader.
    """

    name: str
    title: str
    variables: tuple[str, ...] = ()
    marks: tuple[str, ...] = ()
    devices: tuple[str, ...] = ()
    roots: tuple[Candidate, ...] = ()
    any_volume: bool = False
    local: tuple[str, ...] = ()
    style: Style = "cloud"
    home: str = ""
    keeps: str = ""

    def signal(
        self, environ: Mapping[str, str], marks: Collection[str], mounts: "Iterable[Mount]"
    ) -> str:
        """What hints at this platform, for a sentence; empty where nothing does."""
        for name in self.variables:
            if environ.get(name):
                return f"{name} is set"
        for mount in mounts:
            if any(part in mount.device for part in self.devices):
                return f"{mount.device} is mounted"
            if any(_below(str(mount.path), mark) for mark in self.marks):
                return f"{mount.path} is mounted"
        return next((f"{mark} is there" for mark in self.marks if mark in marks), "")

    def default_root(self, environ: Mapping[str, str], home: Path) -> Path | None:
        """The promised root, for text made on another machine; None where none is fixed."""
        return next(self.fixed_roots(environ, home), None)

    def fixed_roots(self, environ: Mapping[str, str], home: Path) -> Iterator[Path]:
        """Every root whose path is known without a look at the mounts, best first."""
        for candidate in self.roots:
            value = candidate.path
            path = environ.get(value[1:], "") if value.startswith("$") else value
            if path.startswith("/") and "*" not in path:
                yield Path(path)
        if self.style == "local":
            yield home / ".cache" / "gradience"


def _below(path: str, mark: str) -> bool:
    return path == mark or path.startswith(f"{mark}/")
