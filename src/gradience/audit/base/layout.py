"""Which files of a model hold its weights: the rule of transformers and diffusers, on names alone.

Pure: it is given the names that are there, be it a directory or a listing of the Hub.
"""

import re
from collections.abc import Collection
from dataclasses import dataclass

COMPONENTS = (
    "unet",
    "transformer",
    "transformer_2",
    "prior",
    "text_encoder",
    "text_encoder_2",
    "text_encoder_3",
)
"""Folders of a diffusers pipeline that adapters change."""

_INDEX = ".index.json"
# In the order of preference that transformers and diffusers have; safetensors before pickles.
_STEMS = (
    "model.safetensors",
    "diffusion_pytorch_model.safetensors",
    "pytorch_model.bin",
    "diffusion_pytorch_model.bin",
)

PLAIN_NAMES = tuple(name for stem in _STEMS for name in (stem, stem + _INDEX))
"""Names of a model's weights, the first to be preferred."""


@dataclass(frozen=True, slots=True, kw_only=True)
class WeightsFile:
    """A file to read: the weights themselves or the index of their shards.

    Attributes
    ----------
    name : str
        Relative to the model, with forward slashes.
    prefix : str
        What stands before its tensor names: `unet.` for the folder `unet`.
    """

    name: str
    prefix: str = ""

    @property
    def is_index(self) -> bool:
        """Whether it lists shards."""
        return self.name.endswith(_INDEX)


def weights_files(names: Collection[str]) -> tuple[WeightsFile, ...]:
    """The files that make up a model, or nothing.

    Parameters
    ----------
    names : collection of str
        Every file of the model, relative, with forward slashes.

    Examples
    --------
    >>> weights_files(["config.json", "pytorch_model.bin", "model.safetensors.index.json"])
    (WeightsFile(name='model.safetensors.index.json', prefix=''),)
    >>> weights_files(["unet/diffusion_pytorch_model.safetensors", "vae/model.safetensors"])
    (WeightsFile(name='unet/diffusion_pytorch_model.safetensors', prefix='unet.'),)
    """
    at_root = _choose([name for name in names if "/" not in name])
    if at_root:
        return (WeightsFile(name=at_root),)
    found = []
    for component in COMPONENTS:
        inside = [n.removeprefix(f"{component}/") for n in names if n.startswith(f"{component}/")]
        chosen = _choose([name for name in inside if "/" not in name])
        if chosen:
            found.append(WeightsFile(name=f"{component}/{chosen}", prefix=f"{component}."))
    return tuple(found)


_SPLIT = re.compile(r"(.*)-(\d{5})-of-(\d{5})\.gguf")


def split_names(name: str) -> tuple[str, ...]:
    """All files of a split GGUF model, by the name of one; empty when it is no part of any.

    Examples
    --------
    >>> split_names("m-00002-of-00002.gguf")
    ('m-00001-of-00002.gguf', 'm-00002-of-00002.gguf')
    """
    part = _SPLIT.fullmatch(name)
    if part is None:
        return ()
    return tuple(f"{part[1]}-{at:05}-of-{part[3]}.gguf" for at in range(1, int(part[3]) + 1))


def _gguf_models(names: Collection[str]) -> list[str]:
    """GGUF files that are models, one name for each split one; no projectors, no adapters."""
    found = {n for n in names if n.endswith(".gguf") and "/" not in n and "mmproj" not in n}
    return sorted({(split_names(name) or (name,))[0] for name in found})


# One "of 00001" is all there is.
_PART = re.compile(r".*-\d{5}-of-(?!00001)\d{5}\.(safetensors|bin)")


def _choose(names: Collection[str]) -> str:
    """The weights in one folder: the usual name, else a variant of it, else the only one.

    One shard is never a model: where it lies alone the others and the index were not downloaded.
    """
    for name in PLAIN_NAMES:
        if name in names:
            return name
    for stem in _STEMS:
        base, _, suffix = stem.rpartition(".")
        variants = [
            n
            for n in sorted(names)
            if n.startswith(f"{base}.") and n.endswith((f".{suffix}", f".{suffix}{_INDEX}"))
            if not _PART.fullmatch(n)
        ]
        if variants:
            return variants[0]
    indices = [n for n in names if n.endswith(f".safetensors{_INDEX}")]
    single = [n for n in names if n.endswith(".safetensors") and not n.startswith("adapter_")]
    for group in (indices, single, _gguf_models(names)):
        if len(group) == 1 and not _PART.fullmatch(group[0]):
            return group[0]
    return ""


@dataclass(frozen=True, slots=True, kw_only=True)
class NoWeights:
    """Why a listing holds no weights that are known to be a model's.

    Attributes
    ----------
    reason : str
    remedy : str
        Where naming a file does not help.
    file : str
        One that may be meant; how it is named depends on where it is.
    """

    reason: str
    remedy: str = ""
    file: str = ""


def why_none(names: Collection[str]) -> NoWeights:
    """Why a listing holds no weights that can be read, and what helps."""
    models = _gguf_models(names)
    if models:
        return NoWeights(
            reason=f"it holds {len(models)} GGUF models, and nothing says which is meant",
            file=models[0],
        )
    if "adapter_config.json" in names:
        return NoWeights(
            reason="it is an adapter, not a base model",
            remedy="Name the model of its `base_model_name_or_path`.",
        )
    weights = [name for name in sorted(names) if name.endswith((".safetensors", ".bin"))]
    if weights and all(map(_PART.fullmatch, weights)):
        return NoWeights(
            reason=f"it holds {weights[0]}, which is a part of a model, and no index of the parts",
            remedy="Download the model again, whole; or name the part itself by its path.",
        )
    if weights:
        return NoWeights(
            reason=f"none of its {len(weights)} weights files is named as a model's: {weights[0]}",
            file=weights[0],
        )
    return NoWeights(
        reason="it holds no weights", remedy="Name the model that has model.safetensors."
    )
