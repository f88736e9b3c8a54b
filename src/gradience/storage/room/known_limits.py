"""Limits that a platform sets and no system call shows: pure rules over environment and mount.

RunPod's volumes show the petabytes of the cluster, Kaggle's working directory the disk of the host.
What is known is the size; what is left is found by counting.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from gradience.errors import UsageError
from gradience.system.records import Mount
from gradience.units import parse_size

VOLUME_SIZE = "GRADIENCE_VOLUME_SIZE"
EPHEMERAL_STORAGE = "GRADIENCE_EPHEMERAL_STORAGE"

_RUNPOD_VOLUMES = (Path("/workspace"), Path("/runpod-volume"))
_KAGGLE_BYTES = 20 * 10**9
_SPACES_BYTES = 50 * 10**9
_PAPERSPACE_ROOT_BYTES = 8 * 10**9


@dataclass(frozen=True, slots=True, kw_only=True)
class KnownSize:
    """A size that somebody promised, and the directories whose content counts against it.

    Attributes
    ----------
    name : str
        Whose limit it is: "RunPod volume".
    size : int
        Bytes.
    counted : tuple of Path
        Empty where what counts cannot be told apart from what does not.
    note : str
        One sentence: where the size comes from.
    """

    name: str
    size: int
    counted: tuple[Path, ...]
    note: str


def known_sizes(
    place: Path, mount: Mount, environ: Mapping[str, str], home: Path, volume_size: int | None
) -> tuple[KnownSize, ...]:
    """The sizes that hold for a path, by what the user gave and by platform.

    Parameters
    ----------
    place : Path
        Existing, absolute, without links.
    volume_size : int, optional
        Bytes of the volume that holds it, given by the user.

    Raises
    ------
    UsageError
        If GRADIENCE_VOLUME_SIZE is not a size.
    """
    rules = (
        _given(place, mount, environ, volume_size),
        _kaggle(place, environ),
        _spaces(place, environ, home),
        _paperspace(mount, environ),
    )
    return tuple(size for size in rules if size is not None)


def lies(place: Path, mount: Mount, environ: Mapping[str, str]) -> str:
    """Why the free space that this mount reports is not one's own; empty where it may be.

    Examples
    --------
    >>> pod = Mount(path=Path("/workspace"), device="mfs#eu-1:9421", fs_type="fuse", network=True)
    >>> lies(Path("/workspace"), pod, {})[:54]
    'The volume reports the free space of its whole cluster'
    """
    moosefs = mount.device.startswith("mfs#") or mount.fs_type in ("fuse.mfs", "fuse.moosefs")
    runpod = mount.network and any(name.startswith("RUNPOD_") for name in environ)
    if moosefs or runpod:
        return (
            "The volume reports the free space of its whole cluster; "
            f"give its size in {VOLUME_SIZE}."
        )
    if place.is_relative_to("/content/drive"):
        return "Google Drive counts what is in its trash too; see the quota in Drive."
    if place.is_relative_to("/storage") and _is_paperspace(environ):
        return f"/storage is as large as your plan says; give its size in {VOLUME_SIZE}."
    if "WSL_DISTRO_NAME" in environ and mount.fs_type == "ext4":
        return "The disk of WSL is a file on a Windows drive, which may be full earlier."
    return ""


def _given(
    place: Path, mount: Mount, environ: Mapping[str, str], volume_size: int | None
) -> KnownSize | None:
    root = next((v for v in _RUNPOD_VOLUMES if place.is_relative_to(v)), mount.path)
    if volume_size is not None:
        note = "You gave the size of the volume; its content was counted."
        return KnownSize(name="volume size", size=volume_size, counted=(root,), note=note)
    text = environ.get(VOLUME_SIZE, "").strip()
    if not text:
        return None
    try:
        size = parse_size(text)
    except UsageError as error:
        raise UsageError(f"{VOLUME_SIZE}: {error}", remedy=error.remedy) from error
    # The variable speaks of a volume, not of the container's own disk.
    if not (mount.network or root in _RUNPOD_VOLUMES or lies(place, mount, environ)):
        return None
    note = f"{VOLUME_SIZE} gives the size of the volume; its content was counted."
    return KnownSize(name="volume size", size=size, counted=(root,), note=note)


def _kaggle(place: Path, environ: Mapping[str, str]) -> KnownSize | None:
    working = Path("/kaggle/working")
    if not place.is_relative_to(working):
        return None
    if not any(name in environ for name in ("KAGGLE_KERNEL_RUN_TYPE", "KAGGLE_URL_BASE")):
        return None
    note = "Kaggle keeps 20 GB of /kaggle/working, whatever df shows."
    return KnownSize(name="Kaggle", size=_KAGGLE_BYTES, counted=(working,), note=note)


def _spaces(place: Path, environ: Mapping[str, str], home: Path) -> KnownSize | None:
    if "SPACE_ID" not in environ or place.is_relative_to("/data"):
        return None
    note = "A Space has 50 GB of ephemeral disk; home, /tmp and /app were counted."
    counted = (home, Path("/tmp"), Path("/app"))
    return KnownSize(name="Hugging Face Space", size=_SPACES_BYTES, counted=counted, note=note)


def _paperspace(mount: Mount, environ: Mapping[str, str]) -> KnownSize | None:
    if mount.path != Path("/") or not _is_paperspace(environ):
        return None
    note = "Paperspace gives / 8 GB; put files under /notebooks or /storage."
    return KnownSize(name="Paperspace", size=_PAPERSPACE_ROOT_BYTES, counted=(), note=note)


def _is_paperspace(environ: Mapping[str, str]) -> bool:
    return any(name.startswith("PAPERSPACE_") for name in environ)
