"""Where the bytes go on this machine: caches, mounts, limits, environment."""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from gradience.storage.environment.in_process import configure

__all__ = ["configure"]


def __getattr__(name: str) -> Any:
    if name == "configure":
        from gradience.storage.environment.in_process import configure  # noqa: PLC0415 - on first use

        return configure
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
