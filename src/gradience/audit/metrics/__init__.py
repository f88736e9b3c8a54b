"""One module per metric, one line each here; nothing else needs to know of a new one.

The order is the order of columns: what a reader needs first. The name is the JSON key, the stem of
the flat names of `summary()`, and the heading of the reference page.
"""

from gradience.audit.metrics.metric import Metric
from gradience.registry import Registry

_HERE = "gradience.audit.metrics"

METRICS: Registry[Metric] = Registry(
    "metric",
    {
        "udr": f"{_HERE}.udr:UDR",
        "udr_frobenius": f"{_HERE}.udr:UDR_FROBENIUS",
        "sdi": f"{_HERE}.udr:SDI",
        "merge_rounding": f"{_HERE}.merge:MERGE_ROUNDING",
        "spectral_norm": f"{_HERE}.norms:SPECTRAL_NORM",
        "frobenius_norm": f"{_HERE}.norms:FROBENIUS_NORM",
        "nuclear_norm": f"{_HERE}.norms:NUCLEAR_NORM",
        "energy_rank_90": f"{_HERE}.energy_rank:ENERGY_RANK_90",
        "energy_rank_95": f"{_HERE}.energy_rank:ENERGY_RANK_95",
        "energy_rank_99": f"{_HERE}.energy_rank:ENERGY_RANK_99",
        "effective_rank": f"{_HERE}.effective_rank:EFFECTIVE_RANK",
        "effective_rank_energy": f"{_HERE}.effective_rank:EFFECTIVE_RANK_ENERGY",
        "utilization": f"{_HERE}.utilization:UTILIZATION",
        "stable_rank": f"{_HERE}.stable_rank:STABLE_RANK",
        "condition": f"{_HERE}.condition:CONDITION",
        "balance": f"{_HERE}.balance:BALANCE",
    },
)
