"""Which modules are adapted, how they begin, and what else is trained."""

from collections.abc import Iterator

from gradience.check.finding_kinds import (
    ATTENTION_ONLY,
    DROPOUT_HIGH,
    EMBEDDING_SAVED,
    RANDOM_START,
)
from gradience.check.records import Setup
from gradience.findings import Finding

_HALF = 0.5
_ATTENTION = frozenset(
    [
        *("q_proj", "k_proj", "v_proj", "o_proj", "qkv_proj", "out_proj", "c_attn", "Wqkv"),
        *("query", "key", "value", "query_key_value", "q", "k", "v", "o"),
    ]
)
_EMBEDDINGS = frozenset(
    ["embed_tokens", "lm_head", "wte", "embed_in", "embed_out", "word_embeddings", "shared"]
)


def modules(setup: Setup) -> Iterator[Finding]:
    """Findings about targets, dropout, initialisation and modules saved whole."""
    config = setup.adapter
    if config is None:
        return
    targets = config.target_modules
    names = () if isinstance(targets, str) else targets
    last = {name.rpartition(".")[2] for name in names}
    if last and last <= _ATTENTION and not config.target_parameters:
        yield ATTENTION_ONLY.found(f"target_modules holds {', '.join(sorted(last))}")
    dropout = config.raw.get("lora_dropout")
    if isinstance(dropout, int | float) and dropout >= _HALF:
        yield DROPOUT_HIGH.found(f"lora_dropout is {dropout:g}")
    if config.init is False:
        yield RANDOM_START.found("init_lora_weights is false")
    whole = [n for n in config.modules_to_save if n.rpartition(".")[2] in _EMBEDDINGS]
    if whole:
        yield EMBEDDING_SAVED.found(f"modules_to_save holds {', '.join(whole)}")
