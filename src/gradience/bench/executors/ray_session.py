"""The Ray cluster that trials run on: one that is there, or our own for as long as it takes.

What Ray leaves behind by itself it does not leave here: no usage report, no dashboard, no
`/tmp/ray`, no token in the home directory.
"""

import logging
import os
import secrets
import sys
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager, redirect_stdout
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from gradience import files
from gradience.errors import UsageError, of_an_extra

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
    with of_an_extra(
        "the executor 'ray' needs Ray, which is not installed",
        remedy="pip install 'gradience[ray]'",
    ):
        import ray  # noqa: PLC0415 - an extra, and a second
    return ray


def connect(address: str) -> Session:
    """To a cluster that is there; one that this process is connected to already stays so.

    Raises
    ------
    MissingExtraError
        If Ray is not installed.
    UsageError
        If the cluster does not answer.
    """
    ray = import_ray()
    with ExitStack() as held:
        held.enter_context(_words_to_stderr())
        if not ray.is_initialized():
            try:
                ray.init(address=address, log_to_driver=False, logging_level=logging.ERROR)
            except (ConnectionError, RuntimeError, ValueError) as error:
                raise UsageError(
                    f"executor.options.address: no Ray cluster answers at {address!r} "
                    f"({_first_line(error)})",
                    remedy="Run `ray status`; start this on a node of the cluster, or leave the "
                    "address out for a cluster of this machine.",
                ) from error
            held.callback(ray.shutdown)
        return Session(ray=ray, close=held.pop_all().close)


def start(*, cores: int, gpus: Sequence[str]) -> Session:
    """A cluster of this machine.

    Raises
    ------
    MissingExtraError
        If Ray is not installed.
    UsageError
        If this process has a cluster already, or Ray does not come up.
    """
    ray = import_ray()
    if ray.is_initialized():
        raise UsageError(
            "this process is connected to a Ray cluster already",
            remedy="Name it with executor.options.address ('auto'), or call ray.shutdown() first.",
        )
    with ExitStack() as held:
        held.enter_context(_words_to_stderr())
        temporary = Path(tempfile.mkdtemp(prefix="gradience-ray-"))  # short: it holds Unix sockets
        held.callback(files.remove_tree, temporary)
        held.enter_context(_environment(gpus))
        held.callback(ray.shutdown)
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
        except Exception as error:  # Ray raises just that
            raise UsageError(
                f"Ray did not start on this machine: {_first_line(error)}",
                remedy="It gives its processes half a minute: try again when the machine is less "
                "busy, or use the executor 'local'.",
            ) from error
        return Session(ray=ray, close=held.pop_all().close)


def _words_to_stderr() -> AbstractContextManager[object]:
    """Ray prints the deaths of nodes to stdout, whatever one asks for; that is for our data."""
    return redirect_stdout(sys.stderr)


def _first_line(error: Exception) -> str:
    return str(error).partition("\n")[0]


@contextmanager
def _environment(gpus: Sequence[str]) -> Iterator[None]:
    """Variables that Ray reads from this process when it starts."""
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
    try:
        yield
    finally:
        _set(before)


def _set(variables: Mapping[str, str | None]) -> dict[str, str | None]:
    """Set or remove variables of this process, which Ray reads; returns what they were."""
    before = {name: os.environ.get(name) for name in variables}
    for name, value in variables.items():
        if value is None:
            os.environ.pop(name, None)
        else:
            os.environ[name] = value
    return before
