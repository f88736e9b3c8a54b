"""Compress an adapter into a directory: read, rewrite, measure, write.

PATH -> Adapter -> Rewritten -> Compression (and a PEFT directory)
"""

import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

from gradience.adapter.layout import Notice
from gradience.adapter.read import adapter_from_state_dict, opened
from gradience.adapter.records import Adapter
from gradience.adapter.source import find_one
from gradience.audit.health import zeros
from gradience.audit.layers import audit_layers
from gradience.audit.records import TruncationRule
from gradience.blas import one_thread
from gradience.compress.records import Compression
from gradience.compress.rewrite import (
    Rewritten,
    change_error,
    encoded,
    factor_bytes,
    ranks_by_energy,
    truncate,
)
from gradience.compress.write import weights_bytes, write_peft
from gradience.errors import UnmeasurableError, UsageError
from gradience.findings import Finding, Severity

_RULES = {
    "per_module": "per module",
    "uniform_median": "one rank, the median module's",
    "uniform_p90": "one rank, enough for 9 of 10 modules",
    "uniform_max": "one rank, enough for every module",
}


def _quiet(_: str) -> None:
    """Nobody listens."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Wish:
    """How small: by rank or by energy, and in which type.

    Attributes
    ----------
    rank : int or None
        The most that any module keeps.
    energy : float or None
        Share of sum sigma^2 to keep, from which `rule` makes ranks.
    dtype : str or None
        Type that the factors are stored in; None for the one they have.
    """

    rank: int | None = None
    energy: float | None = None
    rule: TruncationRule = "per_module"
    dtype: Literal["bf16"] | None = None

    def words(self) -> str:
        """What is asked for, in words.

        Examples
        --------
        >>> Wish(energy=0.9, dtype="bf16").words()
        '90% of the energy, per module, bf16'
        """
        size = []
        if self.rank is not None:
            size.append(f"rank {self.rank}")
        if self.energy is not None:
            size.append(f"{100 * self.energy:.6g}% of the energy, {_RULES[self.rule]}")
        return ", ".join([*size, *([self.dtype] if self.dtype else [])])


def compress(
    target: str | os.PathLike[str],
    output: str | os.PathLike[str],
    wish: Wish,
    *,
    dry_run: bool = False,
    notice: Notice = _quiet,
) -> Compression:
    """Write a smaller adapter beside the one that it is made from.

    Parameters
    ----------
    target : str or path
        Everything that names one adapter in PEFT's format.
    output : str or path
        A directory that is not there, or is empty.
    dry_run : bool
        Compute all of it and write nothing.
    notice : callable
        Told in a sentence what takes long, such as a download, and what is wrong with the adapter:
        the smaller one has it too, and may show it no more.

    Raises
    ------
    UsageError
        If nothing is asked for, both rank and energy are, or what is not known; or the directory
        holds something.
    UnreadableError
        If the adapter cannot be read, or its rank cannot be changed; names the module.
    StorageError
        If the disk refuses.
    """
    directory = Path(output)
    _check(directory, wish)
    with opened(find_one(target, notice=notice)) as adapter, one_thread(os.environ):
        for finding in _faults(adapter):
            notice(f"{finding.severity}: {finding.message} [{finding.code}]")
        new = _rewritten(adapter, wish)
        after = adapter_from_state_dict(new.tensors, new.config, source=str(directory))
        return Compression(
            source=adapter.source,
            output=str(directory),
            asked=wish.words(),
            written=not dry_run,
            ranks_before={layer.label: layer.rank for layer in adapter.layers},
            ranks={layer.label: layer.rank for layer in after.layers},
            factor_bytes_before=factor_bytes(adapter),
            factor_bytes=factor_bytes(after),
            nbytes_before=Path(adapter.files[0]).stat().st_size,
            nbytes=len(weights_bytes(new.tensors)) if dry_run else write_peft(directory, new),
            predicted=dict(new.errors),
            predicted_error=new.relative_error if new.errors else None,
            relative_error=_measured(adapter, after),
        )


def _check(output: Path, wish: Wish) -> None:
    if wish.rank is None and wish.energy is None and wish.dtype is None:
        raise UsageError(
            "nothing is asked for", remedy="Give --rank N, --energy SHARE or --dtype bf16."
        )
    if wish.rank is not None and wish.energy is not None:
        raise UsageError(
            f"rank {wish.rank} and energy {wish.energy} are both asked for",
            remedy="Give one of --rank and --energy.",
        )
    if wish.dtype not in (None, "bf16"):
        raise UsageError(
            f"{wish.dtype!r} is no type that factors are stored in",
            remedy="Give bf16, or leave the type as it is.",
        )
    if wish.rule not in _RULES:
        raise UsageError(f"{wish.rule!r} is no rule", remedy=f"Known: {', '.join(_RULES)}.")
    if output.exists() and (not output.is_dir() or any(output.iterdir())):
        raise UsageError(
            f"{output} is there already", remedy="Name a directory that is not there, or is empty."
        )


def _faults(adapter: Adapter) -> Iterator[Finding]:
    """What reading warned of, and a change of zero; NaN is refused by whoever meets it."""
    yield from (f for f in adapter.findings if f.severity is not Severity.INFO)
    measured = audit_layers(adapter.layers, None, width=1e-3, progress=lambda *_: None)
    nothing = zeros(measured.layers, measured.zero_factors)
    yield from (f for f in nothing if f.severity is Severity.ERROR)


def _rewritten(adapter: Adapter, wish: Wish) -> Rewritten:
    if wish.rank is None and wish.energy is None:
        return encoded(adapter, "bf16")
    ranks: Mapping[str, int] | int = wish.rank or 0
    if wish.energy is not None:
        ranks = ranks_by_energy(adapter, wish.energy, wish.rule)
    cut = truncate(adapter, ranks)
    if wish.dtype is None:
        return cut
    narrow = encoded(adapter_from_state_dict(cut.tensors, cut.config), wish.dtype)
    return replace(cut, tensors=narrow.tensors, factor_bytes=narrow.factor_bytes)


def _measured(before: Adapter, after: Adapter) -> float | None:
    try:
        return change_error(before, after)
    except UnmeasurableError:
        return None
