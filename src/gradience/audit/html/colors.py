"""One colour per module type, the same in every chart. Pure."""

from collections.abc import Collection

from gradience.html.spec import Spec

TYPES = ("attention", "mlp", "embedding", "other")
"""Module types in the order of the colours `--type-1` to `--type-4` of the style sheet."""


def type_color(present: Collection[str]) -> Spec:
    """One colour per module type, the same in every chart; the legend lists those present."""
    return {
        "field": "t",
        "type": "nominal",
        "scale": {"domain": list(TYPES)},
        "legend": {
            "title": None,
            "orient": "top",
            "values": [kind for kind in TYPES if kind in present],
            "symbolOpacity": 1,
            "symbolType": "circle",
        },
    }
