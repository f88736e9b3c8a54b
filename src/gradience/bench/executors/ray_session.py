"""The Ray cluster that trials run on: one that is there, or our own for as long as it takes.

What Ray leaves behind by itself it does not leave here: no usage report, no dashboard, no
`/tmp/ray`, no token in the home directory.
"""

import logging
import os
import secrets
import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from gradience import files
from gradience.errors import MissingExtraError, UsageError

_STORE_BYTES = 200_000_000
"""Object store of a cluster of our own, where trials share the disk and little is carried."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Session:
    """A connection to a cluster.

    Attributes
    ----------
    ray : module
    close : callable
        Lets go of it; a cluster of our own ends, with its files.
    """

    ray: Any
    close: Callable[[], None]


def import_ray() -> Any:
    """The library.

    Raises
    ------
    MissingExtraError
        If it is not installed.
    """
    try:
        import ray  # noqa: PLC0415 - an extra, and a second
    except ImportError as error:
        raise MissingExtraError(
            "the executor 'ray' needs Ray, which is not installed",
            remedy="pip install 'gradience[ray]'",
        ) from error
    return ray


def connect(address: str) -> Session:
    """To a cluster that is there; one that this process is connected to already stays so.

    Raises
    ------
    UsageError
        If it does not answer.
    """
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    ray = import_ray()
    if ray.is_initialized():
        return Session(ray=ray, close=lambda: None)
    try:
        ray.init(address=address, log_to_driver=False, logging_level=logging.ERROR)
    except (ConnectionError, RuntimeError, ValueError) as error:
        raise UsageError(
            f"executor.options.address: no Ray cluster answers at {address!r} "
            f"({str(error).partition(chr(10))[0]})",
            remedy="Run `ray status` on a node of it; start this on a node of the cluster, or "
            "leave the address out for a cluster of this machine.",
        ) from error
    return Session(ray=ray, close=ray.shutdown)


def start(*, cores: int, gpus: Sequence[str]) -> Session:
    """A cluster of this machine.

    Raises
    ------
    UsageError
        If this process has one already, or Ray does not come up.
    """
    temporary = Path(tempfile.mkdtemp(prefix="gradience-ray-"))  # short: it holds Unix sockets
    before = _set(
        {
            "RAY_USAGE_STATS_ENABLED": "0",
            # In memory: otherwise Ray writes one to ~/.ray/auth_token.
            "RAY_AUTH_TOKEN": os.environ.get("RAY_AUTH_TOKEN") or secrets.token_hex(32),
            # What a worker without GPUs sees, `trial_environment` decides.
            "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",
            **({"CUDA_VISIBLE_DEVICES": ",".join(gpus)} if gpus else {}),
        }
    )

    def close() -> None:
        ray.shutdown()
        _set(before)
        files.remove_tree(temporary)

    ray = import_ray()
    if ray.is_initialized():
        _set(before)
        files.remove_tree(temporary)
        raise UsageError(
            "this process is connected to a Ray cluster already",
            remedy="Name it with executor.options.address ('auto'), or call ray.shutdown() first.",
        )
    try:
        ray.init(
            address="local",
            num_cpus=cores,
            num_gpus=len(gpus),
            include_dashboard=False,
            log_to_driver=False,
            logging_level=logging.ERROR,
            object_store_memory=_STORE_BYTES,
            _temp_dir=str(temporary),
        )
    except BaseException:
        close()
        raise
    return Session(ray=ray, close=close)


def _set(variables: Mapping[str, str | None]) -> dict[str, str | None]:
    """Set or remove variables of this process, which Ray reads; returns what they were."""
    before = {name: os.environ.get(name) for name in variables}
    for name, value in variables.items():
        if value is None:
            os.environ.pop(name, None)
        else:
            os.environ[name] = value
    return before
