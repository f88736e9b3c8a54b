"""Files of kohya's sd-scripts and of LyCORIS: one flattened module name, a dot, a part.

`lora_unet_mid_block_attentions_0_proj_in.lora_down.weight`: dots of the module path are written
as underscores, so the name cannot be turned back without the model and is kept as it is. Every
module carries its own alpha, and every loader multiplies with alpha / rank. LyCORIS trains rsLoRA
too; its releases store alpha * sqrt(rank) then, so that the same division gives its scale.

References: networks/lora.py of kohya-ss/sd-scripts; lycoris/modules of KohakuBlueleaf/LyCORIS;
`_convert_non_diffusers_lora_to_diffusers` of diffusers 0.42.
"""

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field

from msgspec.structs import replace

from gradience.adapter.config import AdapterConfig
from gradience.adapter.dialects.dialect import Dialect
from gradience.adapter.dialects.pieces import (
    FULL_ROLES,
    LOHA_ROLES,
    LOKR_ROLES,
    Gathered,
    Scaling,
    parts_of,
)
from gradience.adapter.finding_kinds import ALPHA_MISSING, ALPHA_ZERO
from gradience.adapter.parts import Parts
from gradience.errors import UnsupportedAdapterError
from gradience.findings import Finding
from gradience.tensors.stored import StoredTensor

_FACTORS: Mapping[str, str] = {
    "lora_down.weight": "down",
    "lora_up.weight": "up",
    "lora_mid.weight": "mid",
    # Some converters keep PEFT's names for the factors.
    "lora_A.weight": "down",
    "lora_B.weight": "up",
    **{role: role for role in (*LOHA_ROLES, *LOKR_ROLES, *FULL_ROLES)},
}
_SIDES: Mapping[str, str] = {
    "alpha": "alpha",
    "dora_scale": "dora_scale",
    "diff_b": "diff_b",
    "w_norm": "w_norm",
    "b_norm": "b_norm",
}
_PARTS = {**_FACTORS, **_SIDES}

_REFUSED: Mapping[str, str] = {
    "oft_blocks": "OFT multiplies the base weight by a rotation",
    "oft_diag": "OFT multiplies the base weight by a rotation",
    "on_input": "IA3 multiplies the base weight by a vector",
    "a1.weight": "GLoRA's change is a function of the base weight",
    "lora_up1.weight": "ABBA's change is no product of two factors",
}
"""Parts of methods whose change is not defined by the file alone, and why."""

_PREFIXES = ("lora_", "lycoris_", "oft_")
"""How the module names of these trainers begin; a dialect of dotted names has no such part."""

_TOKENS = "bundle_emb."
"""Prefix of textual inversion embeddings that sd-scripts bundles with a LoRA."""


def recognises(names: Collection[str]) -> bool:
    """Whether any of these names is a factor with a flattened module name."""
    known = {*_FACTORS, *_REFUSED}
    return any(_split(name)[1] in known for name in names)


def read(
    tensors: Mapping[str, StoredTensor],
    config: AdapterConfig | None,
    metadata: Mapping[str, str],
) -> Parts:
    """The layers of a kohya or LyCORIS file.

    Raises
    ------
    AdapterError
        If a factor is missing, shapes disagree, or an alpha is not one finite number.
    UnsupportedAdapterError
        If it is of a method whose change the file alone does not define.
    """
    gathered = Gathered()
    for name, tensor in tensors.items():
        module, part = _split(name)
        if part in _REFUSED:
            raise UnsupportedAdapterError(
                f"{name} is of a method that cannot be audited: {_REFUSED[part]}",
                remedy="Train or convert to a LoRA, LoHa or LoKr.",
            )
        if part in _PARTS:
            gathered.add(module, _PARTS[part], tensor)
        elif name.startswith(_TOKENS):
            gathered.add_extra("tokens", tensor)
        else:
            gathered.unread.append(tensor)
    rule = _AlphaOverRank()
    parts = parts_of(gathered, rule)
    return replace(parts, findings=(*parts.findings, *rule.findings()))


def _split(name: str) -> tuple[str, str]:
    """Module and part: what stands before and behind the first dot."""
    module, _, part = name.partition(".")
    return (module, part) if module.startswith(_PREFIXES) else (name, "")


@dataclass(slots=True)
class _AlphaOverRank:
    """The scale rule, which notes the modules it could not follow to the letter."""

    asked: int = 0
    missing: list[str] = field(default_factory=list)
    zero: list[str] = field(default_factory=list)

    def __call__(self, module: str, alpha: float | None, rank: int | None) -> Scaling:
        """alpha / rank; alpha = rank where none is stored, as in the modules of sd-scripts."""
        if rank is None:
            return Scaling(scale=1.0, alpha=alpha)
        self.asked += 1
        if alpha is None:
            self.missing.append(module)
            return Scaling(scale=1.0)
        if alpha == 0:
            self.zero.append(module)
        return Scaling(scale=alpha / rank, alpha=alpha)

    def findings(self) -> list[Finding]:
        """What a user should know about the alphas."""
        found = []
        if self.missing:
            found.append(
                ALPHA_MISSING.found(
                    f"{len(self.missing)} of {self.asked} modules store no alpha; sd-scripts "
                    "takes alpha = rank then, a scale of 1",
                    modules=self.missing,
                    remedy="Write the alpha it was trained with as `.alpha` tensors.",
                )
            )
        if self.zero:
            found.append(
                ALPHA_ZERO.found(
                    f"{len(self.zero)} of {self.asked} modules store alpha = 0, read as a scale "
                    "of 0",
                    modules=self.zero,
                )
            )
        return found


DIALECT = Dialect(
    name="kohya",
    description="sd-scripts, LyCORIS: lora_unet_*.lora_down.weight, .alpha, .hada_*, .lokr_*",
    recognises=recognises,
    read=read,
)
