"""Where each cache kind lies, given an environment and a home directory. Pure.

`readers.resolve` knows what each library does; this adds what no library's variable says alone:
conda's list of package directories, and the directory above a build-specific one.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from gradience.storage.environment.readers import Host, Resolved, resolve
from gradience.storage.inventory.caches import CACHES


@dataclass(frozen=True, slots=True, kw_only=True)
class Place:
    """A directory to look at.

    Attributes
    ----------
    kind : str
        A name of `CACHES`.
    path : Path
        Absolute.
    chosen_by : str
        The variable that led there, "default", or the option of the command line.
    """

    kind: str
    path: Path
    chosen_by: str


def places(
    environ: Mapping[str, str], home: Path, *, host: Host | None = None
) -> tuple[Place, ...]:
    """The directories that libraries would use if they started with this environment.

    Examples
    --------
    >>> found = places({"HF_HOME": "/data/hf"}, Path("/home/me"))
    >>> next((str(p.path), p.chosen_by) for p in found if p.kind == "datasets")
    ('/data/hf/datasets', 'HF_HOME')
    """
    known = resolve(environ, home, host=host)
    found = []
    for name, kind in CACHES.items():
        resolved = known.get(kind.variable)
        if name == "conda":
            found += [Place(kind=name, path=p, chosen_by=by) for p, by in _conda(environ, home)]
        elif resolved is not None:
            found.append(
                Place(kind=name, path=_path(name, resolved), chosen_by=resolved.decided_by)
            )
    return tuple(found)


def _path(name: str, resolved: Resolved) -> Path:
    # The default ends in the build of one Python; extensions of the others lie beside it.
    if name == "torch_extensions" and resolved.decided_by != "TORCH_EXTENSIONS_DIR":
        return resolved.path.parent
    return resolved.path


def _conda(environ: Mapping[str, str], home: Path) -> Iterator[tuple[Path, str]]:
    """conda: CONDA_PKGS_DIRS (a list), else pkgs below the root of the installation.

    CONDA_EXE is `<root>/bin/conda`, set by conda's own shell functions.
    """
    listed = environ.get("CONDA_PKGS_DIRS", "")
    if listed:
        for value in listed.replace(",", ":").split(":"):
            path = Path(str(home) + value[1:]) if value.startswith("~/") else Path(value)
            if path.is_absolute():
                yield path, "CONDA_PKGS_DIRS"
        return
    if environ.get("CONDA_EXE"):
        yield Path(environ["CONDA_EXE"]).parent.parent / "pkgs", "CONDA_EXE"
    yield home / ".conda" / "pkgs", "default"
