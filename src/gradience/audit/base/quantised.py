"""Packed weights that no format of `packed` could read: recognised by their companions.

The norm of packed integers is not the norm of the weight they stand for, and a number computed
from them would look like any other; so what is left packed is refused by name.
"""

from collections.abc import Collection

from gradience.audit.base.weights import TensorFacts

FLOATS = frozenset({"F64", "F32", "F16", "BF16", "F8_E4M3", "F8_E5M2"})

# A parameter of a module, or the start of one, and the format that writes it.
_MARKERS = (
    ("qweight", "GPTQ or AWQ"),
    ("weight_packed", "compressed-tensors"),
    ("weight.absmax", "bitsandbytes 4-bit"),
    ("weight.quant_state", "bitsandbytes 4-bit"),
    ("SCB", "bitsandbytes 8-bit"),
    ("weight.SCB", "bitsandbytes 8-bit"),
    ("weight_format", "bitsandbytes 8-bit"),
    ("weight_scale", "scaled FP8 or INT8"),
    ("weight_quantizer", "scaled FP8 or INT8"),
    ("q_weight", "EXL2"),
    ("trellis", "EXL3"),
    ("W_q", "HQQ or SINQ"),
    ("codebooks", "AQLM"),
    ("weight._data", "quanto"),
)
_STACKED = (("_blocks", "MXFP4"), ("_scale_inv", "scaled FP8"), ("_scale", "scaled FP8 or INT8"))


def packing(parameter: str, siblings: Collection[str], facts: TensorFacts | None) -> str:
    """The format in which a parameter is packed; empty when it is plain numbers, or not there.

    Parameters
    ----------
    parameter : str
        Such as `weight` or `gate_up_proj`.
    siblings : collection of str
        Names of every tensor stored for that module, without the module's own name.
    facts : TensorFacts or None
        Of the parameter itself, when it is stored under its own name.

    Examples
    --------
    >>> packing("weight", ["qweight", "qzeros", "scales"], None)
    'GPTQ or AWQ'
    >>> packing("weight", ["weight", "bias"], TensorFacts(shape=(8, 8), dtype="BF16"))
    ''
    """
    if facts is not None and facts.packed:
        return ""
    for start, name in _MARKERS if parameter in ("weight", "") else ():
        if any(sibling.startswith(start) for sibling in siblings):
            return name
    for end, name in _STACKED:
        if parameter + end in siblings:
            return name
    # ComfyUI's `scale_weight`, DeepSeek's `scale`: FP8 beside any scale is not the weight itself.
    if facts is not None and facts.dtype.startswith("F8") and any("scale" in s for s in siblings):
        return "scaled FP8"
    if facts is not None and facts.dtype not in FLOATS:
        return f"stored as {facts.dtype}"
    return ""
