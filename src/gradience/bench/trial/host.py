"""The base model of a trial, loaded once, and the adapters that are put on it and taken off again.

Every adapter comes from a directory, through PEFT, as a user's does: what is trained starts from
written files, and what is evaluated is what was written. The one thing done beyond PEFT's loading
is to check that the tensors on the model are those of the file.
"""

import contextlib
import logging
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import peft
import torch
import transformers

from gradience.bench.base_model import base_directory
from gradience.bench.records import TrialSpec
from gradience.bench.tasks import TASKS
from gradience.errors import BaseModelError, TrialError, UsageError

_HEADS = ("classifier", "score")
"""What PEFT trains whole, unasked, for sequence classification (`PeftModelForSeqCls...`)."""

_TASK_TYPES = {"sequence_classification": "SEQ_CLS", "causal_lm": "CAUSAL_LM"}
_CLASSES = {
    "sequence_classification": "AutoModelForSequenceClassification",
    "causal_lm": "AutoModelForCausalLM",
}
_DEFAULT = "default"

logger = logging.getLogger(__name__)


class Host:
    """A base model and its tokenizer on the device of a trial.

    Everything random (a new head) is drawn from the trial's seed, so that all trials of a seed have
    one and the same base.

    Raises
    ------
    BaseModelError
        If the base cannot be loaded, or has no weights for a part that no adapter carries.
    TrialError
        If the device is not there.
    """

    def __init__(self, spec: TrialSpec) -> None:
        self.spec = spec
        self.task = TASKS[spec.task.name]
        self.device = _device(spec.device)
        directory = base_directory(spec.model)
        self.tokenizer = _tokenizer(directory)
        transformers.set_seed(spec.seed)
        self._base = self._load(directory)
        self._dtypes = {name: p.dtype for name, p in self._base.named_parameters()}
        self._on: Any = None

    def _load(self, directory: Path) -> Any:
        options: dict[str, Any] = {}
        if self.task.model == "sequence_classification":
            options["num_labels"] = self.task.labels(self.spec.task)
        try:
            model, info = getattr(transformers, _CLASSES[self.task.model]).from_pretrained(
                directory,
                dtype=getattr(torch, self.spec.model.dtype),
                output_loading_info=True,
                # False, not left out: without it transformers asks on the terminal, and waits.
                trust_remote_code=False,
                **options,
            )
        except (OSError, ValueError, RuntimeError) as error:
            raise BaseModelError(
                f"{directory} cannot be loaded as {_CLASSES[self.task.model]}: {error}",
                remedy="Check the files of the base model, and that the task fits it.",
            ) from error
        self._refuse_unloaded(info["missing_keys"], directory)
        model.config.pad_token_id = self.tokenizer.pad_token_id
        return model.to(self.device)

    def _refuse_unloaded(self, missing: Sequence[str], directory: Path) -> None:
        """Refuse random weights that the adapter does not carry: they would be lost with it."""
        saved = self.heads
        lost = sorted(n for n in missing if not any(f".{head}." in f".{n}" for head in saved))
        if lost:
            raise BaseModelError(
                f"{directory} has no weights for {', '.join(lost[:3])}"
                f"{f' and {len(lost) - 3} more' if len(lost) > 3 else ''}: they start at random, "
                "and no adapter carries them",
                remedy="Name their module in `lora.modules_to_save`, or use a base that has them.",
            )

    @property
    def heads(self) -> tuple[str, ...]:
        """Modules that are trained whole and saved with the adapter."""
        own = self.spec.lora.modules_to_save
        return own + (_HEADS if self.task.model == "sequence_classification" else ())

    def write_untrained(self, directory: Path) -> None:
        """Write the untrained adapter of the settings: the step-0 state, head included.

        Raises
        ------
        UsageError
            If PEFT finds nothing to adapt.
        """
        lora = self.spec.lora
        config = peft.LoraConfig(
            task_type=_TASK_TYPES[self.task.model],
            r=lora.rank,
            lora_alpha=lora.alpha,
            lora_dropout=lora.dropout,
            use_rslora=lora.rslora,
            target_modules=lora.targets if isinstance(lora.targets, str) else list(lora.targets),
            modules_to_save=list(lora.modules_to_save) or None,
        )
        transformers.set_seed(self.spec.seed)
        try:
            model = peft.get_peft_model(self._base, config)
        except ValueError as error:
            raise UsageError(
                f"lora.targets is {lora.targets!r}, which PEFT cannot adapt: {error}",
                remedy="Name modules of the base model, such as q_proj, or all-linear.",
            ) from error
        named = model.peft_config[_DEFAULT]
        named.base_model_name_or_path = self.spec.model.id
        named.revision = self.spec.model.revision
        # A base in half precision gives heads in half precision: training keeps them in float32.
        _trained_in_float32(model)
        self._on = model
        self.save(directory)

    def save(self, directory: Path) -> None:
        """Write the adapter that is on the model."""
        # Without False, PEFT asks the Hub whether the vocabulary was resized; it was not.
        self._on.save_pretrained(str(directory), save_embedding_layers=False)

    def put_on(self, directory: Path, *, trainable: bool = False) -> Any:
        """The model with the adapter of a directory, in place of any other.

        Returns
        -------
        peft.PeftModel
            In training mode if `trainable`, else in evaluation mode.

        Raises
        ------
        TrialError
            If PEFT leaves a tensor on the model that is not the file's.
        """
        self._take_off()
        model = peft.PeftModel.from_pretrained(self._base, str(directory), is_trainable=trainable)
        _check_loaded(model, directory)
        if trainable:
            _load_in_float32(model, directory)
        self._on = model.to(self.device)
        return self._on.train(trainable)

    def _take_off(self) -> None:
        if self._on is not None:
            self._base = self._on.unload()
            self._on = None
            # PEFT leaves the trained head on the base; its numbers are replaced by those of the
            # next adapter, its type would stay.
            for name, parameter in self._base.named_parameters():
                parameter.data = parameter.data.to(self._dtypes[name])


@contextlib.contextmanager
def deterministic() -> Iterator[None]:
    """Algorithms whose results do not vary from run to run, where torch has them."""
    before = torch.are_deterministic_algorithms_enabled()
    warn_only = torch.is_deterministic_algorithms_warn_only_enabled()
    # Where there is none, a warning in the log: an error would forbid the model.
    torch.use_deterministic_algorithms(True, warn_only=True)
    try:
        yield
    finally:
        torch.use_deterministic_algorithms(before, warn_only=warn_only)


def processor(device: torch.device) -> str:
    """What computes: the name of the GPU, or the CPU's threads, which decide how sums are split.

    Examples
    --------
    >>> processor(torch.device("cpu")).startswith("cpu, ")
    True
    """
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    count = torch.get_num_threads()
    return f"{device.type}, {count} thread{'s' if count > 1 else ''}"


def _device(name: str) -> torch.device:
    if name == "cuda" and not torch.cuda.is_available():
        raise TrialError(
            "the trial is for a GPU, and torch sees none",
            remedy="Run it where there is one, or set `executor.device: cpu` in the config.",
        )
    if name == "cuda" and torch.cuda.device_count() > 1:
        # The Trainer would spread each batch over all of them, and train with another batch size.
        raise TrialError(
            f"a trial runs on one GPU, and it sees {torch.cuda.device_count()}",
            remedy="Set CUDA_VISIBLE_DEVICES to one of them.",
        )
    return torch.device(name)


def _tokenizer(directory: Path) -> Any:
    try:
        tokenizer = transformers.AutoTokenizer.from_pretrained(directory, trust_remote_code=False)
    except (OSError, ValueError) as error:
        raise BaseModelError(
            f"{directory} has no tokenizer that can be loaded: {error}",
            remedy="Put tokenizer.json and tokenizer_config.json beside the weights.",
        ) from error
    if tokenizer.pad_token is None:
        if tokenizer.eos_token is None:
            raise BaseModelError(
                f"the tokenizer of {directory} has neither a padding nor an end token",
                remedy="Name a pad_token in its tokenizer_config.json.",
            )
        tokenizer.pad_token = tokenizer.eos_token
    tokenizer.padding_side = "right"
    return tokenizer


def _trained_in_float32(model: Any) -> None:
    for parameter in model.parameters():
        if parameter.requires_grad:
            parameter.data = parameter.data.float()


def _load_in_float32(model: Any, directory: Path) -> None:
    """Trained weights in float32, with the digits of the file that a half-precision head lost."""
    _trained_in_float32(model)
    peft.set_peft_model_state_dict(model, peft.utils.load_peft_weights(str(directory), "cpu"))


def _check_loaded(model: Any, directory: Path) -> None:
    """PEFT may leave out or round what it loads; what is evaluated must be what was written."""
    written = peft.utils.load_peft_weights(str(directory), "cpu")
    loaded = peft.get_peft_model_state_dict(model, save_embedding_layers=False)
    wrong = [
        name
        for name, tensor in written.items()
        if name not in loaded
        # A head takes the base's type, for users of the adapter too.
        or not torch.equal(loaded[name].cpu(), tensor.to(loaded[name].dtype))
        or ("lora_" in name and loaded[name].dtype != torch.float32)
    ]
    if wrong or len(loaded) != len(written):
        raise TrialError(
            f"PEFT did not load {directory} as it is: {(wrong or sorted(set(loaded)))[0]}",
            remedy="Use the versions of peft and transformers that the bench was tested with.",
        )
