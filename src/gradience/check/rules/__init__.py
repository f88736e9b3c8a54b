"""The families of rules, by name."""

from gradience.check.records import Rules
from gradience.registry import Registry

RULES: Registry[Rules] = Registry(
    "family of rules",
    {
        "keys": "gradience.check.rules.keys:keys",
        "values": "gradience.check.rules.values:values",
        "scale": "gradience.check.rules.scale:scale",
        "modules": "gradience.check.rules.modules:modules",
        "serving": "gradience.check.rules.serving:serving",
        "optimizing": "gradience.check.rules.optimizing:optimizing",
        "precision": "gradience.check.rules.precision:precision",
        "saving": "gradience.check.rules.saving:saving",
    },
)
