"""The machine as a reader finds it: environment, mounts, hints, installed client."""

import os
from collections.abc import Mapping
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from gradience import system
from gradience.storage.environment.host import this_host
from gradience.storage.environment.platforms.detection import all_marks, all_variables
from gradience.storage.environment.readers import Host
from gradience.storage.environment.transfer import Client
from gradience.system.records import Mount

_INIT = Path("/proc/1/environ")


@dataclass(frozen=True, slots=True, kw_only=True)
class Machine:
    """Facts that a layout is decided from.

    Attributes
    ----------
    environ : mapping of str to str
    hints : mapping of str to str
        `environ`, and what the first process was started with: a session that sshd began lacks the
        variables of the container. Only names that are hints are taken from there.
    home : Path
    mounts : tuple of Mount
    marks : frozenset of str
        Paths that are there and hint at a platform.
    client : Client
    host : Host
    """

    environ: Mapping[str, str]
    hints: Mapping[str, str]
    home: Path
    mounts: tuple[Mount, ...]
    marks: frozenset[str]
    client: Client
    host: Host


def read_machine(environ: Mapping[str, str]) -> Machine:
    """Look at this machine; nothing is changed.

    Raises
    ------
    StorageError
        If the system does not answer what is mounted.
    """
    home = Path(environ.get("HOME") or Path.home())
    return Machine(
        environ=environ,
        hints={**_first_process(), **environ},
        home=home,
        mounts=system.mounts(),
        marks=frozenset(mark for mark in all_marks() if _there(mark)),
        client=Client(
            hub=_version("huggingface_hub"),
            hf_transfer=_version("hf_transfer") is not None,
            xet=_version("hf_xet") is not None,
        ),
        host=this_host(),
    )


def _there(mark: str) -> bool:
    try:
        return os.path.lexists(mark)
    except OSError:
        return False


def _first_process() -> dict[str, str]:
    """Hints among the variables of process 1, where it may be read."""
    try:
        raw = _INIT.read_bytes()
    except OSError:
        return {}
    known = all_variables()
    pairs = (item.partition("=") for item in raw.decode("utf-8", "replace").split("\0"))
    return {name: value for name, _, value in pairs if name in known}


def _version(name: str) -> str | None:
    try:
        return version(name)
    except PackageNotFoundError:
        return None
