"""The findings of `gradience check`, each with the paper, manual or measurement it rests on."""

from gradience.check.records import CHECK, SOURCES, kind
from gradience.findings import Severity

_ERROR, _WARNING, _INFO = Severity.ERROR, Severity.WARNING, Severity.INFO

_WITHOUT_REGRET = "Schulman et al., LoRA Without Regret, Thinking Machines Lab, 2025"
_RSLORA = "Kalajdzievski, rsLoRA, arXiv 2312.03732"
_PEFT = "PEFT 0.21, LoraConfig"

SCALE_ZERO = kind(
    "scale_zero",
    _ERROR,
    "lora_alpha is 0 for some module: its change is multiplied by zero, and no gradient "
    "reaches it.",
    "Set lora_alpha to r or 2 r.",
    source=_PEFT,
)
SCALE_LARGE = kind(
    "scale_large",
    _WARNING,
    "The change is multiplied by more than 16. Usual scales lie between 0.25 and 8; switching "
    "use_rslora on without lowering lora_alpha multiplies the scale by sqrt(r).",
    "Lower lora_alpha: with rsLoRA, alpha = sqrt(r) gives the scale 1.",
    source=_RSLORA,
)
ALPHA_LEFT_AT_DEFAULT = kind(
    "alpha_left_at_default",
    _WARNING,
    "The rank was raised and lora_alpha is PEFT's default of 8, so that the change is multiplied "
    "by a quarter or less, and learns as much more slowly.",
    "Set lora_alpha to r or 2 r, or use_rslora=True; LoRA Without Regret uses 32 for every rank.",
    source=f"{_PEFT}; {_RSLORA}",
)
HIGH_RANK_WITHOUT_RSLORA = kind(
    "high_rank_without_rslora",
    _INFO,
    "At a rank of 64 and more, alpha / r below 1 makes gradients small; alpha / sqrt(r) does not. "
    "In PEFT's own comparison at r = 64, rsLoRA answers 51 to 53 % of GSM8K, LoRA 47 to 49 %.",
    "Try use_rslora=True, with lora_alpha near sqrt(r) to 8 sqrt(r); or tune the learning rate.",
    source=f"{_RSLORA}; PEFT method_comparison",
)
SCALES_DIFFER = kind(
    "scales_differ",
    _WARNING,
    "rank_pattern changes the rank of some modules and alpha_pattern does not follow, so that they "
    "learn at scales four times apart or more.",
    "Give the same keys an alpha_pattern with the same ratio of alpha to rank, or use_rslora=True.",
    source=f"{_PEFT}: scale = alpha / r of each module",
)
RANDOM_START = kind(
    "random_start",
    _WARNING,
    "init_lora_weights is false: the adapter begins with a random change, and the model is "
    "disturbed before the first step.",
    "Leave init_lora_weights at True.",
    source=f"{_PEFT}: 'intended for debugging purposes'",
)
VALUE_IMPOSSIBLE = kind(
    "value_impossible",
    _ERROR,
    "A value of the training that its key cannot have: a text where a number belongs, NaN, or a "
    "sign or a fraction that it has no use for.",
    "Correct the value in the configuration.",
    source="transformers 5.24, TrainingArguments; torch 2.13, optimizers and DataLoader",
)
KEY_MISTYPED = kind(
    "key_mistyped",
    _WARNING,
    "A key is none that PEFT, transformers or TRL read, and nearly one that they do: its value "
    "would be refused, or left out for a default.",
    "Write the key that was meant.",
    source="PEFT 0.21, LoraConfig; transformers 5.24, TrainingArguments; TRL 1.16, SFTConfig",
)
DROPOUT_HIGH = kind(
    "dropout_high",
    _WARNING,
    "lora_dropout drops half of the adapter's input or more; 0.05 to 0.1 is what was tested.",
    "Set lora_dropout to 0.05, or 0.1 for a small model and little data.",
    source="Dettmers et al., QLoRA, arXiv 2305.14314, appendix B",
)
ATTENTION_ONLY = kind(
    "attention_only",
    _INFO,
    "Only attention is adapted. With the same number of parameters, adapters on the MLPs, or on "
    "all layers, learn more.",
    'Set target_modules="all-linear", at a lower rank if the size matters.',
    source=_WITHOUT_REGRET,
)
EMBEDDING_SAVED = kind(
    "embedding_saved",
    _INFO,
    "modules_to_save trains and saves a whole embedding or output layer: of an 8B model 1 GB each "
    "in every checkpoint.",
    "If only some tokens are new, use trainable_token_indices.",
    source=f"{_PEFT}, trainable_token_indices",
)
NOT_SERVED_AS_TRAINED = kind(
    "not_served_as_trained",
    _INFO,
    "Servers do not take every adapter as PEFT trains it.",
    "Merge it before serving (merge_and_unload), or train it in a form that the server takes.",
    source="vLLM 0.33, vllm/lora/peft_helper.py; SGLang 0.5.23, LoRAConfig, issue 40835",
)
LEARNING_RATE_ZERO = kind(
    "learning_rate_zero",
    _ERROR,
    "The learning rate is zero or negative: nothing is learned.",
    "Set it to 1e-4 to begin with.",
    source="torch.optim",
)
LEARNING_RATE_OF_FULL_FINETUNING = kind(
    "learning_rate_of_full_finetuning",
    _WARNING,
    "The learning rate is one for full fine-tuning. LoRA's best rate is about ten times as high, "
    "and hardly depends on the rank.",
    "Begin with 1e-4 to 5e-4.",
    source=f"{_WITHOUT_REGRET}; TRL, PEFT integration",
)
LEARNING_RATE_HIGH = kind(
    "learning_rate_high",
    _WARNING,
    "The learning rate is above 5e-3 with an Adam: ten times what works best for LoRA on language "
    "models. Such runs diverge.",
    "Begin with 1e-4 to 5e-4.",
    source=_WITHOUT_REGRET,
)
BATCH_LARGE = kind(
    "batch_large",
    _INFO,
    "LoRA bears large batches less well than full fine-tuning, at every rank.",
    "Try a batch below 512, with more steps.",
    source=_WITHOUT_REGRET,
)
TWO_PRECISIONS = kind(
    "two_precisions",
    _ERROR,
    "bf16 and fp16 are both on: TrainingArguments takes one of them.",
    "Leave bf16=True, and fp16 out.",
    source="transformers, TrainingArguments",
)
FP16_OVERFLOWS = kind(
    "fp16_overflows",
    _WARNING,
    "This family of models was trained in bf16, and its activations exceed the largest number of "
    "fp16 (65504): the loss becomes NaN.",
    "Set bf16=True, or train in float32 where the GPU has no bf16.",
    source="transformers, Underflow and overflow detection (mT5); its issue 36822 (Gemma 3)",
)
NEVER_SAVES = kind(
    "never_saves",
    _INFO,
    'save_strategy="no": a crash, or a job that is ended, loses the whole run.',
    'Set save_strategy="steps" with save_total_limit=1; an adapter is small.',
    source="transformers, TrainingArguments",
)
KEEPS_EVERY_CHECKPOINT = kind(
    "keeps_every_checkpoint",
    _WARNING,
    "More than twenty checkpoints will be kept, because save_total_limit is not set.",
    "Set save_total_limit=2, or a larger save_steps.",
    source="transformers, TrainingArguments",
)
BEST_NOT_SAVED = kind(
    "best_not_saved",
    _ERROR,
    "load_best_model_at_end=True needs each evaluated step to be saved: with other strategies, or "
    "save_steps that are no multiple of eval_steps, a Trainer refuses to start.",
    "Set eval_strategy and save_strategy alike, and save_steps to a multiple of eval_steps; or "
    'save_strategy="best".',
    source="transformers, TrainingArguments",
)
CANNOT_RESUME = kind(
    "cannot_resume",
    _INFO,
    "save_only_model=True leaves out optimizer, scheduler and random states: no checkpoint can be "
    "resumed from as it was.",
    "Leave it off for an adapter, whose optimizer state is small.",
    source="transformers, TrainingArguments",
)

__all__ = ["CHECK", "SOURCES"]
