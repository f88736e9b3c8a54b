"""The layout for this process: set before the libraries are imported, or refused.

Most libraries freeze their paths when they are imported, torch and Xet read them later. A variable
set in between splits one process over two disks, so that is an error that names both halves.
"""

import os
import sys
import tempfile
from collections.abc import Mapping, MutableMapping
from dataclasses import dataclass
from pathlib import Path

from gradience.errors import UsageError
from gradience.storage.environment.choose import absolute, environment
from gradience.storage.environment.directories import create_directories
from gradience.storage.environment.layout import Layout
from gradience.storage.environment.machine import read_machine
from gradience.storage.environment.readers import Host, Resolved, resolve
from gradience.storage.environment.transfer import Choice

# Module and constant to the place it froze.
_FROZEN = {
    ("huggingface_hub.constants", "HF_HOME"): "hf_home",
    ("huggingface_hub.constants", "HF_HUB_CACHE"): "hub",
    ("huggingface_hub.constants", "HF_ASSETS_CACHE"): "assets",
    ("huggingface_hub.constants", "HF_TOKEN_PATH"): "hub_token",
    ("transformers.utils.hub", "HF_MODULES_CACHE"): "modules",
    ("diffusers.utils.constants", "HF_MODULES_CACHE"): "modules",
    ("datasets.config", "HF_DATASETS_CACHE"): "datasets",
    ("datasets.config", "DOWNLOADED_DATASETS_PATH"): "datasets_downloads",
    ("datasets.config", "EXTRACTED_DATASETS_PATH"): "datasets_extracted",
    ("datasets.config", "HF_MODULES_CACHE"): "datasets_modules",
    ("evaluate.config", "HF_EVALUATE_CACHE"): "evaluate",
    ("evaluate.config", "HF_METRICS_CACHE"): "metrics",
    ("accelerate.commands.config.config_args", "cache_dir"): "accelerate",
}

# Read at each call: these would move although the constants above stay.
_MOVING = {
    "torch.hub.get_dir()": "torch_hub",
    "inductor's cache": "inductor",
    "torch's extensions": "torch_extensions",
    "Xet's staging": "xet",
    "W&B's cache": "wandb_cache",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Frozen:
    """A constant that an imported library holds, and the place it should be."""

    constant: str
    value: str
    wanted: str


def configure(
    root: str | os.PathLike[str] | None = None,
    platform: str | None = None,
    transfer: Choice = "auto",
    *,
    create: bool = True,
    environ: MutableMapping[str, str] = os.environ,
) -> Layout:
    """Set this process's environment, before the libraries that read it are imported.

    Parameters
    ----------
    root : path, optional
        The directory to start from, in place of the platform's own.
    platform : str, optional
        Key of `PLATFORMS`; detected where left out.
    transfer : str
        `plain`, `fast` or `auto`.
    create : bool
        Make the directories.
    environ : mutable mapping
        Changed in place.

    Returns
    -------
    Layout
        What was set.

    Raises
    ------
    UsageError
        If a library that is already imported holds another place: nothing is changed, and the
        message says which constants are frozen and what would move.
    StorageError
        If a directory cannot be made.

    Examples
    --------
    Before anything else is imported::

        import gradience.storage
        gradience.storage.configure(root="/workspace")
        import transformers
    """
    machine = read_machine(environ)
    chosen = environment(
        machine,
        platform=platform,
        root=absolute(root, machine.home, machine.host.cwd) if root is not None else None,
        choice=transfer,
    )
    _refuse_split(environ, chosen.layout.values, machine.home, machine.host)
    if create and chosen.here:
        create_directories(chosen.layout)
    environ.update(chosen.layout.values)
    if environ is os.environ:
        # tempfile remembers what TMPDIR was at its first use; None makes it look again.
        tempfile.tempdir = None
    return chosen.layout


def frozen(places: Mapping[str, Resolved]) -> tuple[Frozen, ...]:
    """Constants of imported libraries that differ from where `places` wants them."""
    found = []
    for (module, constant), place in _FROZEN.items():
        value = getattr(sys.modules.get(module), constant, None)
        if value is not None and str(value) != places[place].value:
            found.append(
                Frozen(
                    constant=f"{module}.{constant}",
                    value=str(value),
                    wanted=places[place].value,
                )
            )
    return tuple(found)


def _frozen_switches(switches: Mapping[str, str]) -> tuple[Frozen, ...]:
    """Switches that the imported hub holds otherwise."""
    hub = sys.modules.get("huggingface_hub.constants")
    wanted = switches.get("HF_HUB_DISABLE_XET")
    held = getattr(hub, "HF_HUB_DISABLE_XET", None)
    if wanted is None or held is None or held == (wanted == "1"):
        return ()
    name = "huggingface_hub.constants.HF_HUB_DISABLE_XET"
    return (Frozen(constant=name, value=str(held), wanted=str(wanted == "1")),)


def _refuse_split(
    before: Mapping[str, str], values: Mapping[str, str], home: Path, host: Host
) -> None:
    """Raise where a library is imported already and holds another place."""
    wanted = resolve({**before, **values}, home, host=host)
    held = (*frozen(wanted), *_frozen_switches(values))
    if not held:
        return
    now = resolve(before, home, host=host)
    moving = [
        f"{what} ({now[place].value} -> {wanted[place].value})"
        for what, place in _MOVING.items()
        if now[place].value != wanted[place].value
    ]
    stays = "; ".join(f"{item.constant} = {item.value} (not {item.wanted})" for item in held)
    moves = "; ".join(moving) or "nothing"
    raise UsageError(
        "libraries are already imported, so one process would use two disks. "
        f"Frozen: {stays}. Would move: {moves}. Nothing was changed.",
        remedy="Call gradience.storage.configure() before the first import of these libraries, or "
        'set the variables before Python starts: eval "$(gradience env)".',
    )
