"""Files of diffusers and its relatives: a dotted module path of the model, a dot, a part.

Four generations spell the factors differently (`to_q_lora.down`, `lora_linear_layer.down`,
`lora.down`, `lora_A`) and mean the same; a name becomes the path of the module in the diffusers
model, such as `unet.mid_block.attentions.0.transformer_blocks.0.attn1.to_q`. The scale is, in
this order: alpha / rank of an `.alpha` tensor; what the LoRA config says that diffusers writes
into the file's metadata; and 1, because without both `W + B @ A` is what diffusers applies.

References: diffusers 0.42, utils/state_dict_utils.py (names), utils/peft_utils.py
`get_peft_kwargs` (scale), loaders/lora_base.py (`lora_adapter_metadata`).
"""

import json
import math
import re
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field

from msgspec.structs import replace

from gradience.adapter.config import AdapterConfig, parse_config
from gradience.adapter.dialects import peft_keys
from gradience.adapter.dialects.dialect import Dialect
from gradience.adapter.dialects.pieces import (
    FULL_ROLES,
    LOHA_ROLES,
    LOKR_ROLES,
    Gathered,
    Scaling,
    parts_of,
)
from gradience.adapter.finding_kinds import ALPHA_MISSING, RANK_MISMATCH, SCALE_ASSUMED
from gradience.adapter.parts import Parts
from gradience.errors import AdapterConfigError, AdapterError, UnsupportedAdapterError
from gradience.findings import Finding, Severity
from gradience.tensors.stored import StoredTensor

METADATA_KEY = "lora_adapter_metadata"
"""Where diffusers keeps the LoRA config of each component, as JSON."""

_COMPONENT = re.compile(
    r"(unet|transformer(_\d)?|text_encoder(_\d)?|prior|decoder|controlnet|diffusion_model)\."
)
_UNET_ROOTS = ("down_blocks.", "mid_block.", "up_blocks.")
"""Modules of a UNet; files of 2023 wrote them without `unet.` in front."""

_FACTOR = re.compile(
    r"(?P<module>.+?)(?P<old>_lora|\.lora|\.lora_linear_layer)?"
    r"\.(?P<part>lora_A|lora_B|lora_down|lora_up|lora_mid|down|up)"
    r"(?:\.[A-Za-z]\w*)??\.(?P<kind>weight|bias)"
)
_FACTOR_ROLES = {
    "lora_A": "down",
    "lora_down": "down",
    "down": "down",
    "lora_B": "up",
    "lora_up": "up",
    "up": "up",
    "lora_mid": "mid",
}
_MAGNITUDE = re.compile(r"(?P<module>.+)\.lora_magnitude_vector(\.\w+?)?(\.weight)?")
_WHOLE = (*LOHA_ROLES, *LOKR_ROLES, *FULL_ROLES)
_SIDES = ("alpha", "dora_scale", "diff_b")
_TEXT_PROJECTIONS = {"to_q": "q_proj", "to_k": "k_proj", "to_v": "v_proj", "to_out": "out_proj"}

_OTHER_DIALECTS = ("base_model.", "lora_", "lycoris_", "oft_")
"""How names of PEFT directories and of kohya files begin."""

_CONTROL_LORA = "lora_controlnet"
"""Marks Stability's Control-LoRA, whose factors stand beside whole layers of a ControlNet."""


def recognises(names: Collection[str]) -> bool:
    """Whether any of these names is a factor with a dotted path of a diffusers model.

    `lora_A` under a dotted path is PEFT's spelling too; what PEFT takes for its own is its own.
    """
    if _CONTROL_LORA in names:
        return True
    roles = {_spelled(name)[1] for name in names}
    return bool(roles & {"down", "up", *_WHOLE}) and not peft_keys.recognises(names)


def read(
    tensors: Mapping[str, StoredTensor],
    config: AdapterConfig | None,
    metadata: Mapping[str, str],
) -> Parts:
    """The layers of a diffusers file.

    Raises
    ------
    AdapterError
        If a factor is missing, shapes disagree, or alphas and the config contradict each other.
    AdapterConfigError
        If the LoRA config in the metadata cannot be understood.
    UnsupportedAdapterError
        For a Control-LoRA.
    """
    if _CONTROL_LORA in tensors:
        raise UnsupportedAdapterError(
            "this is a Control-LoRA: it holds layers of a ControlNet beside low-rank factors",
            remedy="Load it with diffusers as a ControlNet; it is no change of a base model.",
        )
    gathered = Gathered()
    for name, tensor in tensors.items():
        module, role = _spelled(name)
        if role is None:
            gathered.unread.append(tensor)
        else:
            gathered.add(module, role, tensor)
    rule = _Rule(configs=_configs(metadata), config=config)
    parts = parts_of(gathered, rule)
    return replace(parts, findings=(*parts.findings, *rule.findings()))


def _spelled(name: str) -> tuple[str, str | None]:
    """Module path in the diffusers model, and role; None for what is no part of an adapter."""
    if name.startswith(_OTHER_DIALECTS):
        return name, None
    path = name.replace(".processor.", ".")
    match = _FACTOR.fullmatch(path)
    if match is not None and (match["old"] or match["part"] not in ("down", "up")):
        role = _FACTOR_ROLES[match["part"]]
        module = _module(match["module"])
        if match["old"] == "_lora":
            module = _of_old_processor(module)
        if match["kind"] == "bias":  # only B can have one
            return module, "bias" if role == "up" else None
        return module, role
    match = _MAGNITUDE.fullmatch(path)
    if match is not None:
        module = _module(match["module"])
        old = module.startswith("unet.") and module.endswith(".to_out")
        return f"{module}.0" if old else module, "magnitude"
    stem, _, part = path.rpartition(".")
    if stem and part in (*_WHOLE, *_SIDES):
        return _module(stem.removesuffix(".lora")), part
    return name, None


def _module(path: str) -> str:
    return f"unet.{path}" if path.startswith(_UNET_ROOTS) else path


def _of_old_processor(path: str) -> str:
    """`attn1.to_out` of an attention processor is `attn1.to_out.0` of the model."""
    stem, _, leaf = path.rpartition(".")
    if path.startswith("text_encoder"):
        return f"{stem}.{_TEXT_PROJECTIONS.get(leaf, leaf)}"
    return f"{path}.0" if leaf == "to_out" else path


def _configs(metadata: Mapping[str, str]) -> dict[str, AdapterConfig]:
    """The LoRA config of each component (`unet.`), `` for one that names no component."""
    text = metadata.get(METADATA_KEY)
    if not text:
        return {}
    try:
        content = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise AdapterConfigError(
            f"{METADATA_KEY} in the file's metadata is not JSON: {error}",
            remedy="Save the file again with diffusers.",
        ) from error
    if not isinstance(content, dict):
        raise AdapterConfigError(
            f"{METADATA_KEY} in the file's metadata is not an object",
            remedy="Save the file again with diffusers.",
        )
    by_component: dict[str, dict[str, object]] = {}
    for key, value in content.items():
        match = _COMPONENT.match(key)
        component = match[0] if match else ""
        by_component.setdefault(component, {})[key[len(component) :]] = value
    return {
        component: parse_config({"peft_type": "LORA", **raw}, f"{component}{METADATA_KEY}")
        for component, raw in by_component.items()
    }


@dataclass(slots=True)
class _Rule:
    """The scale rule of diffusers; notes what a user should know about it."""

    configs: Mapping[str, AdapterConfig]
    config: AdapterConfig | None
    assumed: list[str] = field(default_factory=list)
    no_alpha: list[str] = field(default_factory=list)
    other_rank: list[str] = field(default_factory=list)

    def __call__(self, module: str, alpha: float | None, rank: int | None) -> Scaling:
        """As stored, else as configured, else 1."""
        config, path = self._config_of(module)
        if config is None:
            return self._stored(module, alpha, rank)
        found = self._configured(config, module, path, rank)
        stored = None if alpha is None or rank is None else alpha / rank
        if stored is not None and not math.isclose(stored, found.scale, rel_tol=1e-3):
            raise AdapterError(
                f"{module} stores alpha {alpha:g} at rank {rank}, a scale of {stored:g}, and its "
                f"config says {found.scale:g}",
                remedy=f"Remove the `.alpha` tensors or {METADATA_KEY}; diffusers refuses both.",
            )
        return found

    def _config_of(self, module: str) -> tuple[AdapterConfig | None, str]:
        match = _COMPONENT.match(module)
        component = match[0] if match else ""
        if component in self.configs:
            return self.configs[component], module[len(component) :]
        return self.configs.get("", self.config), module[len(component) :]

    def _stored(self, module: str, alpha: float | None, rank: int | None) -> Scaling:
        if alpha is not None:
            return Scaling(scale=1.0 if rank is None else alpha / rank, alpha=alpha)
        self.assumed.append(module)
        return Scaling(scale=1.0)

    def _configured(
        self, config: AdapterConfig, module: str, path: str, rank: int | None
    ) -> Scaling:
        """PEFT's own rule, which diffusers hands the config to; the tensors' rank divides."""
        wanted = config.rank_of(path)
        alpha = config.alpha_of(path)
        if config.alpha is None:
            self.no_alpha.append(module)
        if config.peft_type == "LOKR" or rank is None:
            divisor = wanted or rank or 1
        else:
            divisor = rank
            if wanted is not None and wanted != rank:
                self.other_rank.append(module)
        root = math.sqrt(divisor) if config.use_rslora else float(divisor)
        return Scaling(scale=alpha / root, alpha=alpha, configured_rank=wanted)

    def findings(self) -> list[Finding]:
        """What a user should know about the scales."""
        found = []
        if self.assumed:
            # Defined by the format, so no warning: see get_peft_kwargs.
            kind = replace(SCALE_ASSUMED, severity=Severity.INFO)
            found.append(
                kind.found(
                    f"{len(self.assumed)} modules store neither an alpha nor a config; diffusers "
                    "adds B @ A as it is then, a scale of 1",
                    modules=self.assumed,
                    remedy="Nothing, unless it was trained with another alpha than its rank.",
                )
            )
        if self.no_alpha:
            found.append(
                ALPHA_MISSING.found(f"{METADATA_KEY} names no lora_alpha", modules=self.no_alpha)
            )
        if self.other_rank:
            found.append(
                RANK_MISMATCH.found(
                    f"{len(self.other_rank)} modules have another rank than {METADATA_KEY} says",
                    modules=self.other_rank,
                )
            )
        return found


DIALECT = Dialect(
    name="diffusers",
    description="diffusers, ai-toolkit: unet.*.lora.down.weight, transformer.*.lora_A.weight",
    recognises=recognises,
    read=read,
)
