"""An audit as a data frame: one row per layer, one column per number.

A value that could not be measured is null (NaN in pandas, which has no other null for floats); its
reason is in the record.
"""

from collections.abc import Mapping
from typing import Any

from gradience.audit.metrics import METRICS
from gradience.audit.records import AdapterAudit, LayerAudit
from gradience.errors import of_an_extra


def to_frame(audit: AdapterAudit) -> Any:
    """One row per layer in the order of the model.

    Parameters
    ----------
    audit : AdapterAudit

    Returns
    -------
    polars.DataFrame or pandas.DataFrame
        polars where it is installed. Columns: name, module_type, block, kind, method, out, in,
        rank, scale, parameters, nbytes, every metric of `gradience.audit.metrics.METRICS` under
        its own name, udr_lower and udr_upper.

    Raises
    ------
    MissingExtraError
        If neither polars nor pandas is installed.
    """
    columns = _columns(audit.layers)
    try:
        import polars as pl  # noqa: PLC0415 - an extra
    except ImportError:
        return _pandas(columns)
    floats = dict.fromkeys(_FLOATS, pl.Float64)
    return pl.DataFrame(columns, schema_overrides=floats | {"block": pl.String})


def _pandas(columns: Mapping[str, list[Any]]) -> Any:
    with of_an_extra(
        "a data frame needs polars or pandas, and neither is installed",
        remedy='pip install "gradience[frame]"',
    ):
        import pandas as pd  # noqa: PLC0415 - an extra
    return pd.DataFrame(columns).astype(dict.fromkeys(_FLOATS, "float64"))


_FLOATS = ("scale", *METRICS, "udr_lower", "udr_upper")


def _columns(layers: tuple[LayerAudit, ...]) -> dict[str, list[Any]]:
    plain = ("name", "module_type", "block", "kind", "method")
    counts = ("rank", "scale", "parameters", "nbytes")
    return (
        {field: [getattr(a, field) for a in layers] for field in plain}
        | {"out": [a.shape[0] for a in layers], "in": [a.shape[1] for a in layers]}
        | {field: [getattr(a, field) for a in layers] for field in counts}
        | {name: [a.metrics.get(name) for a in layers] for name in METRICS}
        | {
            "udr_lower": [a.base.udr_lower if a.base else None for a in layers],
            "udr_upper": [a.base.udr_upper if a.base else None for a in layers],
        }
    )
