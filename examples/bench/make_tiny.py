"""Write the model and the data of `tiny.yaml`: python examples/bench/make_tiny.py DIR.

A randomly initialised BERT of two layers with a tokenizer of 40 words, and reviews made of them: so
that the bench can be seen at work in some minutes, without a network. Its numbers mean nothing.
"""

import random
import sys
from pathlib import Path

import torch
import transformers
from tokenizers import Tokenizer, models, pre_tokenizers, processors

GOOD = ["bright", "clever", "fine", "fresh", "lovely", "warm", "witty", "tender", "bold", "crisp"]
BAD = ["clumsy", "cold", "dull", "flat", "grim", "stale", "hollow", "bland", "tired", "crude"]
NEUTRAL = ["film", "story", "plot", "scene", "the", "a", "with", "and", "an", "ending"]
SPECIAL = ["[PAD]", "[UNK]", "[CLS]", "[SEP]"]


def write_model(directory: Path) -> None:
    """A BERT whose random features differ enough to be learned from."""
    torch.manual_seed(0)
    vocabulary = {word: i for i, word in enumerate([*SPECIAL, *GOOD, *BAD, *NEUTRAL])}
    tokenizer = Tokenizer(models.WordLevel(vocabulary, unk_token="[UNK]"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    tokenizer.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]", special_tokens=[(s, vocabulary[s]) for s in ("[CLS]", "[SEP]")]
    )
    config = transformers.BertConfig(
        vocab_size=len(vocabulary),
        hidden_size=32,
        intermediate_size=64,
        num_hidden_layers=2,
        num_attention_heads=4,
        max_position_embeddings=32,
        initializer_range=0.2,
    )
    transformers.BertModel(config).save_pretrained(directory)
    names = {"pad_token": "[PAD]", "unk_token": "[UNK]", "cls_token": "[CLS]", "sep_token": "[SEP]"}
    transformers.PreTrainedTokenizerFast(tokenizer_object=tokenizer, **names).save_pretrained(
        directory
    )


def write_reviews(path: Path, rows: int, *, seed: int) -> None:
    """`text<TAB>label` lines: a review is good if it has more good words than bad ones."""
    rng = random.Random(seed)
    lines = ["text\tlabel\n"]
    for _ in range(rows):
        label = rng.randrange(2)
        words = [*rng.choices((BAD, GOOD)[label], k=3), *rng.choices((GOOD, BAD)[label], k=1)]
        words += rng.choices(NEUTRAL, k=2)
        rng.shuffle(words)
        lines.append(f"{' '.join(words)}\t{label}\n")
    path.write_text("".join(lines), encoding="utf-8")


def main() -> None:
    """Write all of it below a directory."""
    root = Path(sys.argv[1])
    root.mkdir(parents=True, exist_ok=True)
    write_model(root / "model")
    write_reviews(root / "train.tsv", 256, seed=1)
    write_reviews(root / "test.tsv", 400, seed=2)
    print(f"wrote {root}/model, train.tsv, test.tsv")


if __name__ == "__main__":
    main()
