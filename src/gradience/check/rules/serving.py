"""What servers will make of the adapter that this configuration trains."""

from collections.abc import Iterator

from gradience.adapter.config import AdapterConfig
from gradience.check.finding_kinds import NOT_SERVED_AS_TRAINED
from gradience.check.records import Setup
from gradience.findings import Finding
from gradience.page import number

_MOVES_BASE = ("pissa", "olora", "corda", "loftq")


def serving(setup: Setup) -> Iterator[Finding]:
    """One finding with everything that vLLM or SGLang refuses or scales differently."""
    config = setup.adapter
    if config is None or config.peft_type != "LORA":
        return
    troubles = list(_troubles(config))
    if troubles:
        yield NOT_SERVED_AS_TRAINED.found("; ".join(troubles))


def _troubles(config: AdapterConfig) -> Iterator[str]:
    if config.use_dora:
        yield "vLLM and SGLang refuse DoRA"
    if config.use_rslora and config.r:
        yield f"SGLang ignores use_rslora: the change would be {number(config.r**0.5)} times weaker"
    if config.rank_pattern:
        yield "SGLang refuses rank_pattern"
    if isinstance(config.init, str) and config.init.startswith(_MOVES_BASE):
        yield f"vLLM refuses an adapter initialised by {config.init}, which moved the base weights"
