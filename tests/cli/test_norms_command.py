"""`gradience norms` as a user meets it, the Hub included: a loop-back server answers."""

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from time import monotonic
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import load_file, save, save_file

from factories_bases import decoder_shapes, write_base
from gradience import artifacts
from gradience.audit.base.norms_file import SCHEMA, NormsFile
from gradience.audit.norms.records import (
    KEPT_SCHEMA,
    LIST_SCHEMA,
    MATCH_SCHEMA,
    VERIFY_SCHEMA,
    BaseMatch,
    Kept,
    NormsList,
    Verification,
)
from hub_server import COMMIT, Repo, serve

Run = Callable[..., subprocess.CompletedProcess[str]]
SHAPES = decoder_shapes(hidden=72)


@pytest.fixture
def gradience(tmp_path: Path) -> Run:
    def run(*args: object, **environ: str) -> subprocess.CompletedProcess[str]:
        own = {
            "GRADIENCE_CACHE_DIR": str(tmp_path / "cache"),
            "HF_HUB_CACHE": str(tmp_path / "hub"),
            "HF_HUB_OFFLINE": "1",
            "COLUMNS": "160",
        }
        return subprocess.run(
            [sys.executable, "-m", "gradience", *map(str, args)],
            capture_output=True,
            text=True,
            check=False,
            cwd=tmp_path,
            env={**os.environ, **own, **environ},
        )

    return run


@pytest.fixture
def base(tmp_path: Path) -> Path:
    write_base(tmp_path / "base", SHAPES)
    return tmp_path / "base"


@pytest.fixture
def adapter(tmp_path: Path) -> Path:
    rng = np.random.default_rng(0)
    tensors = {}
    for at in range(2):
        for part in ("q_proj", "v_proj"):
            stem = f"base_model.model.model.layers.{at}.self_attn.{part}"
            tensors[f"{stem}.lora_A.weight"] = rng.standard_normal((2, 72), dtype=np.float32)
            tensors[f"{stem}.lora_B.weight"] = rng.standard_normal((72, 2), dtype=np.float32)
    path = tmp_path / "run"
    path.mkdir()
    save_file(tensors, path / "adapter_model.safetensors")
    config = {"peft_type": "LORA", "r": 2, "lora_alpha": 2, "target_modules": ["q_proj", "v_proj"]}
    (path / "adapter_config.json").write_text(json.dumps(config))
    return path


def content(done: subprocess.CompletedProcess[str], schema: str, kind: type) -> Any:
    return artifacts.decode(done.stdout.encode(), schema, kind, source="stdout")


def test_measure_export_and_audit_without_the_base(
    gradience: Run, base: Path, adapter: Path, tmp_path: Path
) -> None:
    assert "No norms are kept" in gradience("norms", "ls").stdout
    done = gradience("norms", "measure", base)
    assert done.returncode == 0, done.stderr
    assert "15 weights of" in done.stdout
    listed = content(gradience("norms", "ls", "--json"), LIST_SCHEMA, NormsList)
    assert [(e.model, e.weights) for e in listed.entries] == [("base", 15)]
    assert "0 B were read" in gradience("norms", "measure", base).stdout
    shown = gradience("norms", "show", "base", "--all").stdout
    assert "model.layers.1.mlp.up_proj.weight" in shown
    by_directory = gradience("norms", "export", base, "--out", "by_directory.json")
    assert by_directory.returncode == 0, by_directory.stderr
    kept = content(gradience("norms", "show", "base", "--json"), SCHEMA, NormsFile)
    assert len(kept.norms) == 15

    done = gradience("norms", "export", "base", "--out", "n.json", "--name", "org/tiny@abc")
    assert "15 norms of org/tiny@abc" in done.stdout
    audits = {}
    for how in (["--base-norms-from", "n.json"], ["--base-model", base]):
        done = gradience("audit", adapter, *how, "--json", "--no-cache")
        assert done.returncode == 0, done.stderr
        audits[str(how[0])] = json.loads(done.stdout)["content"]
    alone, beside = audits.values()
    assert [a["metrics"]["udr"] for a in alone["layers"]] == [
        a["metrics"]["udr"] for a in beside["layers"]
    ]
    assert alone["base"]["model"] == "org/tiny"
    assert (
        "UDR beside org/tiny@abc"
        in gradience("audit", adapter, "--base-norms-from", "n.json").stdout
    )


def test_an_audit_on_the_word_of_a_file_says_so_until_it_was_checked(
    gradience: Run, base: Path, adapter: Path, tmp_path: Path
) -> None:
    gradience("norms", "measure", base)
    gradience("norms", "export", "base", "--out", "n.json")
    elsewhere = {"GRADIENCE_CACHE_DIR": str(tmp_path / "cache2")}

    def audited(*how: object) -> tuple[bool, int]:
        done = gradience("audit", adapter, *how, "--json", **elsewhere)
        found = json.loads(done.stdout)["content"]
        codes = [finding["code"] for finding in found["findings"]]
        return "base_norms_unchecked" in codes, found["base"]["unchecked"]

    assert audited("--base-norms-from", "n.json") == (True, 4)
    done = gradience("norms", "import", "n.json", **elsewhere)
    assert "15 of 15 stand on the word of their file, unchecked" in done.stdout
    assert "(15 unchecked)" in gradience("norms", "ls", **elsewhere).stdout
    assert "told by n.json" in gradience("norms", "show", "base", **elsewhere).stdout
    assert audited("--base-model", base) == (True, 4)
    done = gradience("norms", "export", "base", "--out", "again.json", **elsewhere)
    assert "15 of them are on the word of another file" in done.stderr
    sample = ("norms", "import", "base", "--base-model", base, "--sample", "6")
    done = gradience(*sample, **elsewhere)
    assert "6 of the 15 told were measured again and agree" in done.stdout
    assert "9 of 15 stand on the word of their file" in done.stdout
    assert "(9 unchecked)" in gradience("norms", "ls", **elsewhere).stdout
    done = gradience(
        "norms", "import", "base", "--base-model", base, "--all", "--json", **elsewhere
    )
    assert done.returncode == 0, done.stderr
    kept = content(done, KEPT_SCHEMA, Kept)
    assert (kept.weights, kept.unchecked) == (15, 0)
    assert kept.verification is not None
    assert len(kept.verification.checked) == 15
    assert audited("--base-model", base) == (False, 0)
    assert audited("--base-norms-from", "n.json") == (False, 0)
    assert "unchecked" not in gradience("norms", "ls", **elsewhere).stdout


def test_measure_replaces_what_a_file_told_and_says_what_was_told_wrong(
    gradience: Run, base: Path, tmp_path: Path
) -> None:
    gradience("norms", "measure", base)
    gradience("norms", "export", "base", "--out", "n.json")
    document = json.loads((tmp_path / "n.json").read_text())
    wrong = document["content"]["norms"]["model.layers.1.mlp.up_proj.weight"]
    wrong["frobenius"] *= 0.999999
    (tmp_path / "n.json").write_text(json.dumps(document))
    elsewhere = {"GRADIENCE_CACHE_DIR": str(tmp_path / "cache2")}
    gradience("norms", "import", "n.json", **elsewhere)
    done = gradience("norms", "measure", base, **elsewhere)
    assert done.returncode == 0, done.stderr
    said = " ".join(done.stdout.split())
    assert "of 15 weights is replaced by what was measured; 14 of 15 had been told right" in said
    assert "told wrong: model.layers.1.mlp.up_proj.weight (the Frobenius norm is another)" in said
    assert "unchecked" not in said + gradience("norms", "ls", **elsewhere).stdout
    again = content(gradience("norms", "measure", base, "--json", **elsewhere), KEPT_SCHEMA, Kept)
    assert (again.replaced, again.unchecked, again.bytes_read) == (0, 0, 0)


def test_norms_that_were_checked_under_one_name_are_checked_under_every_name(
    gradience: Run, base: Path, adapter: Path, tmp_path: Path
) -> None:
    gradience("norms", "measure", base)
    gradience("norms", "export", "base", "--out", "n.json", "--name", "org/tiny")
    elsewhere = {"GRADIENCE_CACHE_DIR": str(tmp_path / "cache2")}
    gradience("norms", "import", "n.json", **elsewhere)
    asked = ("audit", adapter, "--base-norms-from", "n.json", "--json")
    assert "base_norms_unchecked" in gradience(*asked, **elsewhere).stdout
    done = gradience("norms", "import", "n.json", "--base-model", base, "--all", **elsewhere)
    assert done.returncode == 0, done.stderr
    done = gradience(*asked, **elsewhere)
    assert done.returncode == 0, done.stderr
    assert "base_norms_unchecked" not in done.stdout
    (tmp_path / "copy").symlink_to(base)
    assert "0 B were read" in gradience("norms", "measure", "copy", **elsewhere).stdout
    assert gradience("norms", "show", "copy", **elsewhere).stdout.startswith("copy\n")


def test_what_counts_as_unchecked_is_what_an_audit_would_take_unchecked(
    gradience: Run, base: Path, adapter: Path, tmp_path: Path
) -> None:
    gradience("norms", "measure", base)
    gradience("norms", "export", "base", "--out", "n.json", "--name", "org/tiny")
    elsewhere = {"GRADIENCE_CACHE_DIR": str(tmp_path / "cache2")}
    gradience("norms", "import", "n.json", **elsewhere)
    sample = ("norms", "import", "n.json", "--base-model", base, "--sample", "6")
    gradience(*sample, **elsewhere)
    listed = gradience("norms", "ls", **elsewhere).stdout
    assert listed.count("(9 unchecked)") == 2  # one content under two names
    assert (
        "unchecked: 9 are told by n.json"
        in gradience("norms", "show", "org/tiny", **elsewhere).stdout
    )

    gradience("norms", "measure", base, **elsewhere)
    assert "unchecked)" not in gradience("norms", "ls", **elsewhere).stdout
    shown = " ".join(gradience("norms", "show", "org/tiny", **elsewhere).stdout.split())
    assert "15 were told by a file; this content was measured or checked under another" in shown
    assert "unchecked:" not in shown
    assert "stand on the word" not in gradience("norms", "import", "n.json", **elsewhere).stdout
    asked = ("audit", adapter, "--base-norms-from", "n.json", "--json")
    assert json.loads(gradience(*asked, **elsewhere).stdout)["content"]["base"]["unchecked"] == 0
    # What is written is what the file told, whatever else is known.
    done = gradience("norms", "export", "org/tiny", "--out", "again.json", **elsewhere)
    assert "15 of them are on the word of another file" in done.stderr


def test_an_export_replaces_no_file_unless_told_to(
    gradience: Run, base: Path, tmp_path: Path
) -> None:
    gradience("norms", "measure", base)
    (tmp_path / "n.json").write_text("mine")
    done = gradience("norms", "export", "base", "--out", "n.json")
    assert done.returncode == 2
    assert "n.json is there already" in done.stderr
    assert (tmp_path / "n.json").read_text() == "mine"
    assert gradience("norms", "export", "base", "--out", "n.json", "--force").returncode == 0
    assert "15 weights" in gradience("norms", "show", "n.json").stdout


def test_norms_of_another_base_stop_an_audit(
    gradience: Run, base: Path, adapter: Path, tmp_path: Path
) -> None:
    gradience("norms", "measure", base)
    gradience("norms", "export", "base", "--out", "n.json")
    write_base(tmp_path / "other", SHAPES, seed=1)
    done = gradience("audit", adapter, "--base-norms-from", "n.json", "--base-model", "other")
    assert done.returncode == 3
    assert "n.json holds norms of base" in done.stderr
    done = gradience("norms", "import", "n.json", "--base-model", "other")
    assert done.returncode == 1
    assert "do not agree" in done.stdout


def test_norms_on_the_hub_that_cannot_be_asked_are_not_said_to_be_absent(
    gradience: Run, adapter: Path
) -> None:
    done = gradience("audit", adapter, "--base-norms-from", "org/norms")
    assert done.returncode == 3
    assert "the Hub cannot be reached" in done.stderr
    assert "hf upload" not in done.stderr


def test_without_a_network_the_norms_of_a_hub_repository_are_not_waited_for(
    gradience: Run, base: Path, adapter: Path, tmp_path: Path
) -> None:
    gradience("norms", "measure", base)
    gradience("norms", "export", "base", "--out", "base_norms.json")
    asked = ("audit", adapter, "--base-norms-from", "org/norms")
    nobody = {"HF_ENDPOINT": "http://127.0.0.1:1", "HF_HUB_OFFLINE": "0"}
    before = monotonic()
    done = gradience(*asked, **nobody)
    assert monotonic() - before < 10  # huggingface_hub alone asks for 23 s
    assert done.returncode == 3
    assert "the Hub cannot be reached (" in done.stderr
    data = (tmp_path / "base_norms.json").read_bytes()
    with serve(org__norms=Repo(files={"base_norms.json": data})) as hub:
        online = {"HF_ENDPOINT": hub.url, "HF_HUB_OFFLINE": "0"}
        hub.stumbles = 2
        assert gradience(*asked, **online).returncode == 0
    assert gradience(*asked, **nobody).returncode == 0


def test_verify_says_right_wrong_and_proved(gradience: Run, base: Path, tmp_path: Path) -> None:
    gradience("norms", "measure", base)
    gradience("norms", "export", "base", "--out", "n.json")
    done = gradience("norms", "verify", "n.json", "--base-model", base, "--prove", "1")
    assert done.returncode == 0, done.stderr
    assert "VERIFIED" in done.stdout
    assert "proved" in done.stdout
    document = json.loads((tmp_path / "n.json").read_text())
    for norm in document["content"]["norms"].values():
        norm["frobenius"] *= 0.999999
    (tmp_path / "n.json").write_text(json.dumps(document))
    done = gradience("norms", "verify", "n.json", "--base-model", base, "--all", "--json")
    assert done.returncode == 1
    found = content(done, VERIFY_SCHEMA, Verification)
    assert len(found.checked) == 15
    assert {check.outcome for check in found.checked} == {"disagrees"}


def test_verify_without_a_base_or_a_revision_says_what_is_missing(
    gradience: Run, base: Path
) -> None:
    gradience("norms", "measure", base)
    assert gradience("norms", "verify", "base").returncode == 0  # the directory is here
    base.rename(base.with_name("moved"))
    done = gradience("norms", "verify", "base")
    assert done.returncode == 2
    assert "--base-model" in done.stderr


def test_a_dora_layer_says_that_it_needs_the_weight_itself(
    gradience: Run, base: Path, adapter: Path
) -> None:
    tensors = load_file(adapter / "adapter_model.safetensors")
    for name in [n for n in tensors if "lora_A" in n]:
        tensors[name.replace("lora_A.weight", "lora_magnitude_vector")] = np.ones(72, np.float32)
    save_file(tensors, adapter / "adapter_model.safetensors")
    config = json.loads((adapter / "adapter_config.json").read_text()) | {"use_dora": True}
    (adapter / "adapter_config.json").write_text(json.dumps(config))
    gradience("norms", "measure", base)
    gradience("norms", "export", "base", "--out", "n.json")
    done = gradience("audit", adapter, "--base-norms-from", "n.json")
    assert done.returncode == 0, done.stderr
    assert "needs its base weight, and only norms are here" in " ".join(done.stdout.split())


def test_a_copy_of_the_base_is_accepted_when_its_numbers_agree(
    gradience: Run, base: Path, adapter: Path, tmp_path: Path
) -> None:
    gradience("norms", "measure", base)
    gradience("norms", "export", "base", "--out", "n.json")
    tensors = write_base(tmp_path / "copy", SHAPES)
    save_file(tensors, tmp_path / "copy" / "model.safetensors", metadata={"saved": "again"})
    elsewhere = {"GRADIENCE_CACHE_DIR": str(tmp_path / "cache2")}
    done = gradience("norms", "import", "n.json", "--base-model", "copy", "--all", **elsewhere)
    assert done.returncode == 0, done.stderr
    assert "measured again and agree" in done.stdout
    assert "0 B were read" in gradience("norms", "measure", "copy", **elsewhere).stdout


def test_a_hub_repository_carries_norms_and_a_base_is_known_from_the_hub_cache(
    gradience: Run, base: Path, adapter: Path, tmp_path: Path
) -> None:
    gradience("norms", "measure", base)
    gradience("norms", "export", "base", "--out", "base_norms.json")
    weights = {n: np.ones(s, dtype=np.float32) for n, s in SHAPES.items()}
    with serve(
        org__norms=Repo(files={"base_norms.json": (tmp_path / "base_norms.json").read_bytes()}),
        org__none=Repo(files={"README.md": b"nothing"}),
        org__huge=Repo(files={"base_norms.json": bytes(70_000_000)}),
        org__model=Repo(files={"model.safetensors": save(weights), "config.json": b"{}"}),
    ) as hub:
        online = {"HF_ENDPOINT": hub.url, "HF_HUB_OFFLINE": "0", "HF_HUB_DISABLE_XET": "1"}
        done = gradience("audit", adapter, "--base-norms-from", "org/norms", **online)
        assert done.returncode == 0, done.stderr
        assert "UDR beside base" in done.stdout
        done = gradience("audit", adapter, "--base-norms-from", "org/none", **online)
        assert done.returncode == 3
        assert "holds no base_norms.json" in done.stderr
        done = gradience("audit", adapter, "--base-norms-from", "org/norms@v9", **online)
        assert "cannot be had: it has no such revision" in done.stderr
        done = gradience("audit", adapter, "--base-norms-from", "org/huge", **online)
        assert done.returncode == 3
        assert "base_norms.json of org/huge has 70.0 MB" in done.stderr
        assert not (tmp_path / "hub" / "models--org--huge").exists()
        refused = gradience("norms", "measure", "org/model", "--max-download", "1KB", **online)
        assert refused.returncode == 5
        assert "more than the 1.00 KB that may" in refused.stderr
        measured = gradience("norms", "measure", "org/model", **online)
        assert measured.returncode == 0, measured.stderr
        assert "over the network; none of it is written" in measured.stderr
        assert not (tmp_path / "hub" / "models--org--model").exists()
        checked = gradience("norms", "verify", "org/model", "--sample", "2", **online)
        assert checked.returncode == 0, checked.stderr
        assert "2 of 2 tensors of base model org/model, over the network" in checked.stderr
        download(hub.url, tmp_path / "hub")
    done = gradience("norms", "match", adapter, "--json")
    found = content(done, MATCH_SCHEMA, BaseMatch)
    assert done.returncode == 1
    assert (found.outcome, found.alike) == ("several", 2)
    model = next(c for c in found.candidates if c.model == "org/model")
    assert model.revision == COMMIT
    assert set(model.known_from) == {"norms cache", "Hub cache"}


def download(endpoint: str, cache: Path) -> None:
    """Put org/model into a Hub cache, as huggingface_hub does."""
    program = "from huggingface_hub import snapshot_download as s; s('org/model')"
    own = {"HF_ENDPOINT": endpoint, "HF_HUB_CACHE": str(cache), "HF_HUB_DISABLE_XET": "1"}
    environ = {**os.environ, **own, "HF_HUB_DISABLE_PROGRESS_BARS": "1"}
    subprocess.run([sys.executable, "-c", program], check=True, env=environ, capture_output=True)


def test_norms_are_removed_after_a_yes_and_only_from_the_cache(
    gradience: Run, base: Path, tmp_path: Path
) -> None:
    gradience("norms", "measure", base)
    gradience("norms", "export", "base", "--out", "n.json")
    (kept,) = (tmp_path / "cache" / "base_norms").glob("*.json")
    (kept.parent / "bad.json").write_text("{")
    done = gradience("norms", "rm", "base", "--dry-run")
    assert done.returncode == 0, done.stderr
    assert kept.name in done.stdout
    unasked = gradience("norms", "rm", "base")
    assert (unasked.returncode, kept.exists()) == (2, True)
    elsewhere = gradience("norms", "rm", "n.json", "--yes")
    assert elsewhere.returncode == 2
    assert "not among the norms" in elsewhere.stderr
    done = gradience("norms", "rm", "base", "bad.json", "--yes")
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "n.json").exists()
    assert list(kept.parent.glob("*.json")) == []
    assert gradience("norms", "rm", "base", "--yes").returncode == 2


def test_a_model_of_which_a_part_is_here_is_not_taken_for_the_whole(
    gradience: Run, tmp_path: Path
) -> None:
    names = {f"model-0000{at}-of-00002.safetensors": f"w{at}.weight" for at in (1, 2)}
    index = {"weight_map": {tensor: name for name, tensor in names.items()}}
    snapshot = tmp_path / "hub" / "models--org--part" / "snapshots" / COMMIT
    snapshot.mkdir(parents=True)
    (snapshot / "model.safetensors.index.json").write_text(json.dumps(index))
    for name, tensor in names.items():
        save_file({tensor: np.ones((4, 4), np.float32)}, snapshot / name)
    assert gradience("norms", "measure", f"org/part@{COMMIT}").returncode == 0
    (snapshot / "model-00002-of-00002.safetensors").unlink()
    for command in ("measure", "verify"):
        done = gradience("norms", command, f"org/part@{COMMIT}")
        assert done.returncode == 3
        assert "model-00002-of-00002.safetensors, which holds w2.weight, is not" in done.stderr
        assert "hf download org/part" in done.stderr


def test_match_takes_norms_from_where_an_audit_takes_them(
    gradience: Run, base: Path, adapter: Path, tmp_path: Path
) -> None:
    gradience("norms", "measure", base)
    gradience("norms", "export", "base", "--out", "base_norms.json")
    elsewhere = {"GRADIENCE_CACHE_DIR": str(tmp_path / "cache2")}
    data = (tmp_path / "base_norms.json").read_bytes()
    with serve(org__norms=Repo(files={"base_norms.json": data})) as hub:
        online = {"HF_ENDPOINT": hub.url, "HF_HUB_OFFLINE": "0", "HF_HUB_DISABLE_XET": "1"}
        address = f"{hub.url}/org/norms/resolve/main/base_norms.json"
        for source in ("base_norms.json", address, "org/norms"):
            how = ("--base-norms-from", source, "--no-hub-cache")
            done = gradience("norms", "match", adapter, *how, **elsewhere, **online)
            assert done.returncode == 0, done.stderr
            assert "LIKELY: base" in done.stdout
    done = gradience("norms", "match", adapter, "--base-norms-from", "run/adapter_config.json")
    assert done.returncode == 3


def test_match_says_one_none_and_why(gradience: Run, base: Path, adapter: Path) -> None:
    done = gradience("norms", "match", adapter)
    assert done.returncode == 1
    assert "NONE" in done.stdout
    done = gradience("norms", "match", adapter, "--base-model", base)
    assert done.returncode == 0
    assert "LIKELY: " in done.stdout


def test_a_command_that_is_not_there_is_named(gradience: Run) -> None:
    done = gradience("norms", "sohw", "x")
    assert done.returncode == 2
    assert "'show'" in done.stderr


@pytest.mark.parametrize("option", [("--device", "cuda"), ("--all",), ("--sample", "8")])
def test_without_a_base_model_there_is_nothing_to_check_norms_with(
    gradience: Run, base: Path, tmp_path: Path, option: tuple[str, ...]
) -> None:
    gradience("norms", "measure", base)
    gradience("norms", "export", "base", "--out", "n.json")
    place = tmp_path / "team"
    done = gradience("norms", "import", "n.json", "--base-norms-cache", place, *option)
    assert done.returncode == 2
    assert "no base model is named" in done.stderr
    assert "--base-model" in done.stderr
    assert not place.exists()


def test_a_device_that_cannot_be_is_refused(gradience: Run, base: Path) -> None:
    done = gradience("norms", "measure", base, "--device", "tpu")
    assert done.returncode == 2
    assert "cuda" in done.stderr
