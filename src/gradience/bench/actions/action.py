"""What an action is: from a probe, or from nothing, to a written adapter."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

from gradience.adapter.layout import AdapterLocation
from gradience.adapter.read import read_adapter
from gradience.adapter.records import Adapter
from gradience.adapter.source import find_one
from gradience.bench.ledger import TrialPaths
from gradience.bench.records import Training, Trial, Variant
from gradience.bench.tasks.task import ProgressReport
from gradience.compress.rewrite import ranks_by_energy
from gradience.errors import TrialError

if TYPE_CHECKING:
    from gradience.bench.trial.host import Host


@dataclass(frozen=True, kw_only=True)
class Attempt:
    """What an action works with.

    Attributes
    ----------
    trial : Trial
    paths : TrialPaths
        Of this trial; the adapter is to be written to `paths.adapter`.
    probe : TrialPaths or None
        Of the probe of the same seed; nothing is written there.
    progress : callable
    """

    trial: Trial
    paths: TrialPaths
    probe: TrialPaths | None
    progress: ProgressReport

    @property
    def variant(self) -> Variant:
        """What is asked for."""
        return self.trial.spec.variant

    @cached_property
    def host(self) -> "Host":
        """The base model; loaded when first asked for, once."""
        from gradience.bench.trial.host import Host  # noqa: PLC0415 - torch, where it is needed

        return Host(self.trial.spec)

    def of_probe(self, part: str) -> Adapter:
        """The probe's `adapter` or its `step0`.

        Raises
        ------
        TrialError
            If there is no probe.
        """
        if self.probe is None:
            raise TrialError(
                f"{self.variant.action} starts from a probe, and none was given",
                remedy="Give the directory of the probe's trial with --needs.",
            )
        return read_adapter(location_of(self.probe.directory / part))

    def ranks(self) -> Mapping[str, int] | int:
        """The rank that the variant names, or the ranks that its energy gives the probe.

        Raises
        ------
        TrialError
            If it names neither.
        """
        variant = self.variant
        if variant.rank is not None:
            return variant.rank
        if variant.energy is None:
            raise TrialError(
                f"the variant {variant.name} names neither a rank nor an energy",
                remedy="Give `ranks` or `energies` to its ladder.",
            )
        return ranks_by_energy(
            self.of_probe("adapter"), variant.energy, variant.rule or "uniform_max"
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Made:
    """An adapter that was written.

    Attributes
    ----------
    factor_bytes : int or None
        Where its factors stand for an encoding of other bytes than those of the file.
    """

    training: Training | None = None
    factor_bytes: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Action:
    """One way to come to an adapter.

    Attributes
    ----------
    description : str
        One line for lists.
    make : callable
        Writes `paths.adapter`.
    needs_probe : bool
        Whether it starts from a probe's files.
    trains : bool
        Whether it trains, and so takes as long as that.
    from_weights : bool
        Whether the adapter is made from the probe's trained weights, so that its change can be held
        against the probe's.
    """

    description: str
    make: Callable[[Attempt], Made]
    needs_probe: bool = True
    trains: bool = False
    from_weights: bool = True


def location_of(directory: Path) -> AdapterLocation:
    """The one adapter of a directory."""
    return find_one(directory)
