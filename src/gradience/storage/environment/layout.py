"""What goes where: the promised layouts, as an ordered list of variables with a reason each.

Weights and data go to the big disk, compile caches and temporary files to a disk of the machine
itself, the login token stays where it was.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from gradience.errors import UsageError
from gradience.storage.environment.platforms.platform import Platform, Style
from gradience.storage.environment.transfer import Transfer

Kind = Literal["directory", "file", "switch"]

_SOCKET_LIMIT = 60  # of the 107 bytes of a socket's path; programs add names of their own to TMPDIR


@dataclass(frozen=True, slots=True, kw_only=True)
class Setting:
    """One variable with its value.

    Attributes
    ----------
    kind : str
        `directory`: to be created; `file`: a path that is there, or that its own program creates;
        `switch`: not a path.
    """

    name: str
    value: str
    reason: str
    kind: Kind = "directory"


@dataclass(frozen=True, slots=True, kw_only=True)
class Layout:
    """Every variable of one machine, in order.

    Attributes
    ----------
    platform : str
        Key of `PLATFORMS`.
    root : Path
        The directory it starts from; a volume, in a container.
    comments : tuple of str
        Sentences for the head of an exported text.
    """

    platform: str
    root: Path
    settings: tuple[Setting, ...]
    comments: tuple[str, ...] = ()

    @property
    def values(self) -> dict[str, str]:
        """Variable to value."""
        return {setting.name: setting.value for setting in self.settings}

    @property
    def directories(self) -> tuple[str, ...]:
        """What must exist, in order, each once."""
        return tuple(dict.fromkeys(s.value for s in self.settings if s.kind == "directory"))


@dataclass(frozen=True, slots=True)
class _Names:
    """Names below the root."""

    hf_home: str
    hub: str
    datasets: str
    xet: str
    torch: str
    gradience: str
    wandb: str


_CLOUD = _Names(
    "hf_cache/hf_home",
    "hf_cache/hub",
    "hf_cache/datasets",
    "hf_cache/xet",
    "torch_cache",
    "gradience_cache",
    "wandb_cache",
)
_LOCAL = _Names("hf_home", "hub", "datasets", "xet", "torch", ".", "wandb")
_DOCKER = _Names("hf_home", "hub", "datasets", "xet", "torch", "gradience", "wandb")
_NAMES: dict[Style, _Names] = {"cloud": _CLOUD, "local": _LOCAL, "docker": _DOCKER}


def layout(
    platform: Platform,
    root: Path,
    *,
    local: Path,
    token: Path,
    transfer: Transfer,
    temporary: Path | None = None,
    comments: tuple[str, ...] = (),
) -> Layout:
    """Every variable, for a platform whose big disk is at `root`.

    Parameters
    ----------
    platform : Platform
        Its style decides the names below `root`.
    root, local : Path
        Big disk, and directory on a disk of the machine itself; absolute.
    token : Path
        Where the login token is, or would be, without this layout.
    transfer : Transfer
        Switches for downloads.
    temporary : Path, optional
        Directory for temporary files, in place of one below `local`.

    Raises
    ------
    UsageError
        If a path is relative, or holds a character that no format can carry (a newline).
    """
    for path in (root, local, token):
        check_path(str(path))
    settings = (
        *weights(root, platform.style),
        Setting(
            name="HF_TOKEN_PATH",
            value=str(token),
            reason="the login token stays where it was: not on a shared volume, and nobody is "
            "logged out",
            kind="file",
        ),
        *_compile(local),
        _temporary(local, temporary),
        *_wandb(root / _NAMES[platform.style].wandb),
        *(
            Setting(name=name, value=value, reason=transfer.reason, kind="switch")
            for name, value in transfer.switches
        ),
    )
    said = comments if transfer.switches else (*comments, f"Downloads: {transfer.reason}.")
    return Layout(platform=platform.name, root=root, settings=settings, comments=said)


def check_path(path: str) -> None:
    """Refuse a path that is relative, or that cannot be written into every format.

    Raises
    ------
    UsageError
    """
    if not path.startswith("/"):
        raise UsageError(
            f"{path!r} is not an absolute path", remedy="Give one that starts with a slash."
        )
    if any(not _carried(c) for c in path):
        raise UsageError(
            f"{path!r} holds a newline, a control character or a byte that is not UTF-8",
            remedy="Give a directory with a printable name.",
        )


def _carried(character: str) -> bool:
    """Neither a control character (C0, C1, DEL), nor a line separator, nor half of a surrogate."""
    code = ord(character)
    return not (
        code < 0x20 or 0x7F <= code <= 0x9F or code in (0x2028, 0x2029) or 0xD800 <= code <= 0xDFFF
    )


def weights(root: Path, style: Style) -> Iterator[Setting]:
    """Where downloads and data go below the root of a platform of that style."""
    names = _NAMES[style]
    for name, below, reason in (
        ("HF_HOME", names.hf_home, "all that Hugging Face keeps and that has no line of its own"),
        ("HF_HUB_CACHE", names.hub, "models, and the raw files of datasets"),
        ("HF_DATASETS_CACHE", names.datasets, "Arrow builds and results of map()"),
        ("TORCH_HOME", names.torch, "repositories and checkpoints of torch.hub"),
        ("GRADIENCE_CACHE_DIR", names.gradience, "norms of base models, finished audits"),
        ("HF_XET_CACHE", names.xet, "Xet's staging, on the disk of the downloads: up to 16 GB"),
    ):
        yield Setting(name=name, value=str(root / below), reason=reason)


def _compile(local: Path) -> Iterator[Setting]:
    for name, below, reason in (
        ("TORCHINDUCTOR_CACHE_DIR", "inductor", "torch.compile: many small files, on a local disk"),
        ("TRITON_CACHE_DIR", "triton", "kernels are loaded as code: a local disk that runs it"),
        ("TORCH_EXTENSIONS_DIR", "torch_extensions", "built extensions are loaded as code"),
    ):
        yield Setting(name=name, value=str(local / below), reason=reason)


def _temporary(local: Path, given: Path | None) -> Setting:
    below = str(local / "tmp")
    if given is not None:
        value, reason = str(given), "temporary files, in a directory that is always there"
    elif len(below) > _SOCKET_LIMIT:
        value, reason = "/tmp", f"{below} is too long a path for the sockets made there"
    else:
        value, reason = below, "temporary files, on a local disk"
    kind: Kind = "directory" if value == below else "file"
    return Setting(name="TMPDIR", value=value, reason=reason, kind=kind)


def _wandb(root: Path) -> Iterator[Setting]:
    for name, below, reason in (
        ("WANDB_DIR", "runs", "logs of runs, in a directory wandb below it"),
        ("WANDB_CACHE_DIR", "cache", "downloaded artifacts"),
        ("WANDB_DATA_DIR", "data", "artifacts on their way up are staged here"),
        ("WANDB_ARTIFACT_DIR", "artifacts", "artifacts that a run asked for"),
    ):
        yield Setting(name=name, value=str(root / below), reason=reason)
