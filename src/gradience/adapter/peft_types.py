"""Which PEFT types are read, and why the others are not.

A type is read when its file alone says by how much each weight changes. For every other type the
table names the piece that lies elsewhere, so that a refusal tells the user what is missing.
"""

from gradience.errors import AdapterConfigError, UnsupportedAdapterError

READ_TYPES = ("LORA", "ADALORA", "LOHA", "LOKR")
"""The types whose delta a file defines and a reader exists for."""

_PROMPT = "it adds trained tokens or prefixes and changes no weight matrix"
_ROTATION = "it multiplies the base weight by a matrix, so its change is defined only with the base"
_SEEDED = "part of its factors is drawn from a seed and not stored"
_WITH_BASE = "its change is a function of the base weight"
_ROUTED = "it mixes several updates by the input, so there is no one change of the weight"
_NO_MATRIX = "it trains vectors beside the weight matrices"
_SECOND_NETWORK = "it runs a small network beside the model and changes no weight matrix"
_OTHER_FORM = "its change is stored in a form that is not two thin factors, and no reader exists"

_REASONS = {
    _PROMPT: (
        "PROMPT_TUNING MULTITASK_PROMPT_TUNING P_TUNING PREFIX_TUNING CPT CARTRIDGE ADAPTION_PROMPT"
    ),
    _ROTATION: "OFT BOFT HRA ROAD PSOFT",
    _SEEDED: "VERA PVERA RANDLORA FOURIERFT WAVEFT TINYLORA UNILORA",
    _WITH_BASE: "IA3 HIRA OSF DELORA GLORA FROD DEFT PEANUT ADAMSS",
    _ROUTED: "XLORA POLY LILY",
    _NO_MATRIX: "LN_TUNING BEFT TRAINABLE_TOKENS",
    _SECOND_NETWORK: "SHADOW",
    _OTHER_FORM: "VBLORA GRALORA C3A MISS BONE SHIRA SUPERTUNING",
}

UNREAD_TYPES = {name: reason for reason, names in _REASONS.items() for name in names.split()}
"""PEFT types that are refused by name, with the reason."""


def check_type(peft_type: str, source: str) -> None:
    """Refuse a type whose delta is not read.

    Raises
    ------
    UnsupportedAdapterError
        A type of PEFT that is known and not read; the message says why.
    AdapterConfigError
        A type that no PEFT release up to 0.21 knows.
    """
    if peft_type in READ_TYPES:
        return
    if peft_type in UNREAD_TYPES:
        raise UnsupportedAdapterError(
            f"{source}: adapters of type {peft_type} cannot be audited or compressed: "
            f"{UNREAD_TYPES[peft_type]}",
            remedy="Convert it to LoRA with peft.save_as_lora, where PEFT supports that type.",
        )
    raise AdapterConfigError(
        f"{source}: unknown peft_type {peft_type!r}",
        remedy=f"Types that are read: {', '.join(READ_TYPES)}.",
    )
