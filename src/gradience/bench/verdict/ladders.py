"""Which hypothesis is tested at which level, so that the chance of any false SAFE stays `level`.

Within a ladder: a fixed sequence from the largest step down, each at the full level that the
ladder holds, until the first that does not pass. Between ladders: the level starts in equal parts,
and a ladder that passed to its end hands its part on to those that have not, in equal parts. With
one ladder that is the fixed sequence, with ladders of one step it is Holm's procedure; in between
it is the graphical procedure of Bretz, Maurer, Brannath & Posch, Statistics in Medicine 28(4),
2009, with an edge from each step to the next and from each last step to every other first.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class Tested:
    """What became of one step.

    Attributes
    ----------
    level : float
        What it was held against; for a step that was not reached, what its ladder holds.
    passed : bool
    stopped_at : str
        The larger step at which its ladder stopped; empty for a step that was tested.
    """

    level: float
    passed: bool
    stopped_at: str = ""


def run(
    ladders: Sequence[Sequence[str]],
    *,
    level: float,
    p_values: Mapping[str, float],
    passes: Callable[[str, float], bool],
) -> dict[str, Tested]:
    """Test every ladder.

    Parameters
    ----------
    ladders : sequence of sequences of str
        Names of steps, the largest first; none empty.
    p_values : mapping of str to float
        Decides who is tested first where several could pass, as in Holm's procedure; who passes
        in the end does not depend on it.
    passes : callable
        Of a name and a level; must not fail at a higher level what it passed at a lower.
    """
    at = [0] * len(ladders)
    holds = [level / len(ladders)] * len(ladders) if ladders else []
    found: dict[str, Tested] = {}
    while True:
        open_ = [i for i, ladder in enumerate(ladders) if at[i] < len(ladder)]
        passing = [i for i in open_ if passes(ladders[i][at[i]], holds[i])]
        if not passing:
            break
        i = min(passing, key=lambda i: p_values[ladders[i][at[i]]])
        found[ladders[i][at[i]]] = Tested(level=holds[i], passed=True)
        at[i] += 1
        heirs = [j for j in open_ if j != i]
        if at[i] == len(ladders[i]):
            for j in heirs:
                holds[j] += holds[i] / len(heirs)
    for i in open_:
        stop, *below = ladders[i][at[i] :]
        found[stop] = Tested(level=holds[i], passed=False)
        found |= {n: Tested(level=holds[i], passed=False, stopped_at=stop) for n in below}
    return found
