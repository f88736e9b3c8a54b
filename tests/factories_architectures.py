"""Tiny models of many architectures, adapters on them, and what PEFT itself says of both."""

import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
import transformers
from peft import LoraConfig, get_peft_model
from peft.tuners.lora import LoraLayer as LiveLayer
from peft.tuners.lora.layer import ParamWrapper
from transformers.pytorch_utils import Conv1D

from factories_bases import lora_layer
from gradience.adapter.records import LoraLayer

TEXT = {
    "vocab_size": 40,
    "hidden_size": 16,
    "intermediate_size": 24,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "num_key_value_heads": 1,
    "max_position_embeddings": 32,
    "pad_token_id": 0,
    "bos_token_id": 1,
    "eos_token_id": 2,
}
PLAIN = {k: v for k, v in TEXT.items() if k != "num_key_value_heads"}
VISION = {
    "hidden_size": 16,
    "intermediate_size": 24,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "image_size": 16,
    "patch_size": 8,
}
EXPERTS = {"num_experts_per_tok": 1}


@dataclass(frozen=True)
class Architecture:
    """A config, the class with a head, and parameters to adapt beside its modules."""

    model_type: str
    options: dict[str, Any]
    head: str = "AutoModelForCausalLM"
    target_parameters: tuple[str, ...] = ()


FUSED_EXPERTS = ("mlp.experts.gate_up_proj", "mlp.experts.down_proj")

ARCHITECTURES = {
    "llama": Architecture("llama", TEXT),
    "llama-tied": Architecture("llama", {**TEXT, "tie_word_embeddings": True}),
    "mistral": Architecture("mistral", TEXT),
    "qwen2": Architecture("qwen2", TEXT),
    "qwen3": Architecture("qwen3", {**TEXT, "head_dim": 8}),
    "gemma": Architecture("gemma", {**TEXT, "head_dim": 8}),
    "phi": Architecture("phi", TEXT),
    "phi3": Architecture("phi3", TEXT),
    "gpt2": Architecture("gpt2", {"vocab_size": 40, "n_embd": 16, "n_layer": 2, "n_head": 2}),
    "gpt_neox": Architecture("gpt_neox", PLAIN),
    "falcon": Architecture("falcon", PLAIN),
    "bloom": Architecture(
        "bloom", {"vocab_size": 40, "hidden_size": 16, "n_layer": 2, "n_head": 2}
    ),
    "bert": Architecture("bert", PLAIN, "AutoModelForSequenceClassification"),
    "bert-mlm": Architecture("bert", PLAIN, "AutoModelForMaskedLM"),
    "distilbert": Architecture(
        "distilbert",
        {"vocab_size": 40, "dim": 16, "hidden_dim": 24, "n_layers": 2, "n_heads": 2},
        "AutoModelForSequenceClassification",
    ),
    "t5": Architecture(
        "t5",
        {"vocab_size": 40, "d_model": 16, "d_kv": 8, "d_ff": 24, "num_layers": 2, "num_heads": 2},
        "AutoModelForSeq2SeqLM",
    ),
    "whisper": Architecture(
        "whisper",
        {
            "vocab_size": 40,
            "d_model": 16,
            "encoder_layers": 2,
            "decoder_layers": 2,
            "encoder_attention_heads": 2,
            "decoder_attention_heads": 2,
            "encoder_ffn_dim": 24,
            "decoder_ffn_dim": 24,
            "num_mel_bins": 8,
            "max_source_positions": 10,
            "max_target_positions": 12,
            "pad_token_id": 0,
            "bos_token_id": 1,
            "eos_token_id": 2,
            "decoder_start_token_id": 1,
        },
        "AutoModelForSpeechSeq2Seq",
    ),
    "vit": Architecture(
        "vit",
        VISION,
        "AutoModelForImageClassification",
    ),
    "mixtral": Architecture(
        "mixtral",
        {**TEXT, **EXPERTS, "num_local_experts": 3},
        target_parameters=(*FUSED_EXPERTS, "mlp.gate.weight"),
    ),
    "qwen3_moe": Architecture(
        "qwen3_moe",
        {**TEXT, **EXPERTS, "head_dim": 8, "num_experts": 3, "moe_intermediate_size": 12},
        target_parameters=FUSED_EXPERTS,
    ),
    "phimoe": Architecture(
        "phimoe", {**TEXT, **EXPERTS, "num_local_experts": 3}, target_parameters=FUSED_EXPERTS
    ),
    "granitemoe": Architecture(
        "granitemoe",
        {**TEXT, **EXPERTS, "num_local_experts": 3},
        target_parameters=("experts.gate_up_proj", "experts.down_proj"),
    ),
    "llava": Architecture(
        "llava",
        {
            "text_config": {**TEXT, "model_type": "llama"},
            "vision_config": {**VISION, "model_type": "clip_vision_model", "projection_dim": 8},
            "image_token_index": 3,
        },
        "AutoModelForImageTextToText",
    ),
    "gpt_oss": Architecture(
        "gpt_oss",
        {**TEXT, **EXPERTS, "head_dim": 8, "num_local_experts": 3},
        target_parameters=FUSED_EXPERTS,
    ),
}


@contextmanager
def quiet() -> Iterator[None]:
    """Loading and adapting warns for reasons that are not under test."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


def tiny_model(name: str, *, seed: int = 0, **changes: Any) -> Any:
    """A random model with its head, in float32."""
    architecture = ARCHITECTURES[name]
    with quiet():
        config = transformers.AutoConfig.for_model(
            architecture.model_type, **{**architecture.options, **changes}
        )
        torch.manual_seed(seed)
        return getattr(transformers, architecture.head).from_config(config)


def save_base(model: Any, directory: Path, **options: Any) -> Path:
    """`save_pretrained`, as people publish base models."""
    with quiet():
        model.save_pretrained(directory, **options)
    return directory


def adapt(model: Any, *, target_parameters: tuple[str, ...] = (), rank: int = 2) -> Any:
    """LoRA by PEFT on every linear, convolution and embedding of the model."""
    kinds = (torch.nn.Linear, torch.nn.Embedding, torch.nn.Conv1d, torch.nn.Conv2d, Conv1D)
    names = [name for name, module in model.named_modules() if isinstance(module, kinds)]
    config = LoraConfig(
        r=rank, target_modules=names, target_parameters=list(target_parameters) or None
    )
    with quiet():
        return get_peft_model(model, config)


@dataclass(frozen=True)
class Adapted:
    """One adapted weight: the layer as a file would show it, and the live weight below it."""

    layer: LoraLayer
    weight: Callable[[], np.ndarray]
    """(out, in), as the change is laid out."""


def adapted_weights(peft_model: Any) -> Iterator[Adapted]:
    """Every adapted weight of a live PEFT model; stacked experts one by one."""
    for path, module in peft_model.base_model.model.named_modules():
        if isinstance(module, LiveLayer):
            name = ".".join(part for part in path.split(".") if part != "base_layer")
            yield from _adapted(name, module)


def _adapted(name: str, module: Any) -> Iterator[Adapted]:
    if isinstance(module, ParamWrapper):
        yield from _experts(name, module)
        return
    embedding = "default" in module.lora_embedding_A
    weight = module.get_base_layer().weight.detach().numpy()
    flipped = embedding or bool(getattr(module, "fan_in_fan_out", False))
    matrix = weight.T if flipped else weight.reshape(weight.shape[0], -1)
    layer = lora_layer(
        name,
        matrix.shape,
        kind="embedding" if embedding else "conv" if weight.ndim > 2 else "linear",
        base_transposed=flipped,
    )
    yield Adapted(layer, lambda: matrix)


def _experts(name: str, module: Any) -> Iterator[Adapted]:
    weight = module.get_param().detach().numpy()
    if weight.ndim == 2:
        yield Adapted(
            lora_layer(name, weight.shape, parameter=module.parameter_name), lambda: weight
        )
        return
    flipped = not module._did_swap_in_out_features
    for expert, plain in enumerate(weight):
        matrix = plain.T if flipped else plain
        layer = lora_layer(
            name,
            matrix.shape,
            kind="expert",
            parameter=module.parameter_name,
            expert=expert,
            base_transposed=flipped,
        )
        yield Adapted(layer, lambda matrix=matrix: matrix)  # type: ignore[misc]
