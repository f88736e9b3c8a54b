"""One module per action, one line each here: how the adapter of a trial comes about."""

from gradience.bench.actions.action import Action
from gradience.registry import Registry

_HERE = "gradience.bench.actions"

ACTIONS: Registry[Action] = Registry(
    "action",
    {
        "probe": f"{_HERE}.probe:PROBE",
        "truncate": f"{_HERE}.truncate:TRUNCATE",
        "heal": f"{_HERE}.heal:HEAL",
        "retrain": f"{_HERE}.retrain:RETRAIN",
        "resave": f"{_HERE}.resave:RESAVE",
        "bf16": f"{_HERE}.encode:BF16",
        "int8": f"{_HERE}.encode:INT8",
        "random": f"{_HERE}.random_subspace:RANDOM",
    },
)
