"""What a dialect makes of the tensors of one file, before the adapter is put together."""

import msgspec

from gradience.adapter.records import ExtraTensor, LoraLayer
from gradience.findings import Finding
from gradience.tensors.stored import StoredTensor


class Parts(msgspec.Struct, frozen=True, kw_only=True):
    """Every tensor of the file is in `layers`, `extras` or `unread`.

    Attributes
    ----------
    layers : tuple of LoraLayer
        By name, with numbers compared as numbers.
    extras : tuple of ExtraTensor
        Heads, embeddings, biases: trained, but not a change of low rank.
    unread : tuple of StoredTensor
        Tensors that no rule knows.
    findings : tuple of Finding
        What reading brought up.
    """

    layers: tuple[LoraLayer, ...] = ()
    extras: tuple[ExtraTensor, ...] = ()
    unread: tuple[StoredTensor, ...] = ()
    findings: tuple[Finding, ...] = ()
