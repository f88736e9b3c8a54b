"""A preflight against a loop-back Hub and real small disks."""

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import save, save_file

from factories_disks import btrfs_with_quota, tmpfs
from gradience.errors import UsageError
from gradience.storage.environment.readers import Host
from gradience.storage.preflight.records import Cleaning
from gradience.storage.preflight.run import preflight
from gradience.storage.preflight.settings import Other, RunSettings
from hub_server import Repo, serve

WIDTH, LAYERS = 64, 2


def base(dtype=np.float32):
    tensors = {"model.embed_tokens.weight": np.ones((100, WIDTH), dtype)}
    for layer in range(LAYERS):
        for name in ("q_proj", "v_proj"):
            tensors[f"model.layers.{layer}.self_attn.{name}.weight"] = np.ones(
                (WIDTH, WIDTH), dtype
            )
    return save(tensors)


def files():
    weights = base()
    return {
        "config.json": b"{}",
        "model.safetensors": weights,
        "pytorch_model.bin": b"x" * (2 * len(weights)),
        "tokenizer.json": b"t" * 5000,
        "onnx/model.onnx": b"x" * 10_000,
        "README.md": b"# A model",
    }


@pytest.fixture
def hub():
    with serve(org__base=Repo(files=files())) as server:
        yield server


def run(home: Path, *words: object, url: str = "", **more: str):
    """`gradience preflight --json`: the client reads its settings when it is imported."""
    environ = {"PATH": os.environ["PATH"], "HOME": str(home), "HF_HOME": str(home / "hf")}
    environ |= {"HF_ENDPOINT": url} if url else {"HF_HUB_OFFLINE": "1"}
    done = subprocess.run(
        [sys.executable, "-m", "gradience", "preflight", *map(str, words), "--json"],
        capture_output=True,
        text=True,
        check=False,
        cwd=home,
        env={**environ, **more},
    )
    assert done.stdout, done.stderr
    return done.returncode, json.loads(done.stdout)["content"]


def fetch(url: str, home: Path, repo: str, name: str, kind: str) -> None:
    """Download a file with the real client, into the cache that `run` looks at."""
    code = (
        "import sys; from huggingface_hub import hf_hub_download as get; "
        "get(sys.argv[1], sys.argv[2], repo_type=sys.argv[3])"
    )
    environ = {**os.environ, "HF_ENDPOINT": url, "HF_HOME": str(home / "hf")}
    environ.pop("HF_HUB_OFFLINE", None)
    words = [sys.executable, "-c", code, repo, name, kind]
    subprocess.run(words, check=True, env=environ, capture_output=True)


def sizes(content):
    return {w["what"]: w.get("bytes") for d in content["disks"] for w in d["writes"]}


PLAIN = ("--model", "org/base", "--steps", 10, "--save-steps", 5, "--save-total-limit", 1)
LORA = (*PLAIN, "--adapter-rank", 8, "--targets", "q_proj,v_proj")


def test_only_what_will_be_fetched_counts_and_what_is_cached_does_not(hub, tmp_path):
    code, found = run(tmp_path, *LORA, url=hub.url)
    assert (code, found["verdict"]) == (0, "fits")
    want = {n: len(d) for n, d in files().items()}
    fetched = want["config.json"] + want["model.safetensors"] + want["tokenizer.json"]
    assert sizes(found)["model download"] == fetched
    # A and B of four layers, float32, and their header.
    assert sizes(found)["adapter"] == pytest.approx(LAYERS * 2 * 2 * 8 * WIDTH * 4, abs=1500)
    assert not hub.fetched().count("pytorch_model.bin")

    fetch(hub.url, tmp_path, "org/base", "model.safetensors", "model")
    _, found = run(tmp_path, *LORA, url=hub.url)
    assert sizes(found)["model download"] == fetched - want["model.safetensors"]

    # Offline: the shapes come from the cache, and that more may have to be fetched is said.
    code, found = run(tmp_path, *LORA)
    assert (code, found["verdict"]) == (1, "unknown")
    assert "whether all files of org/base are cached is not known" in found["unknown"][0]
    assert sizes(found)["adapter"]


TRAIN = b"p" * 30_000
CARD = {
    "dataset_info": {
        "dataset_size": 90_000,
        "splits": [{"name": "test", "num_examples": 10}, {"name": "train", "num_examples": 400}],
    }
}
FINE_TUNE = ("--batch-size", 8, "--epochs", 2, "--save-strategy", "no", "--map-copies", 2)


def dataset_files():
    files = {"README.md": b"# Data", "data/train.parquet": TRAIN, "data/test.parquet": b"p" * 1000}
    return {**files, "images/logo.png": b"x" * 5000}


def test_a_dataset_is_as_large_as_its_card_says_and_a_run_as_long_as_its_training_split(tmp_path):
    with serve(org__data=Repo(files=dataset_files(), card=CARD)) as hub:
        asked = ("--dataset", "org/data", *FINE_TUNE)
        _, found = run(tmp_path, *asked, url=hub.url)
        assert sizes(found) == {
            "dataset download": 31_000,
            "dataset as Arrow": 90_000,
            "copies by map()": 180_000,
        }
        known = {w["what"]: w["known"] for d in found["disks"] for w in d["writes"]}
        assert known["dataset download"] == known["dataset as Arrow"] == "listed"
        assert found["schedule"]["steps"] == 100  # 2 epochs of 400 examples, 8 at a time

        fetch(hub.url, tmp_path, "org/data", "data/train.parquet", "dataset")
        _, found = run(tmp_path, *asked, url=hub.url)
        assert sizes(found)["dataset download"] == 1000


def test_a_dataset_whose_card_says_nothing_is_reckoned_by_a_rule_that_is_named(tmp_path):
    several = {"dataset_info": [CARD["dataset_info"], {"config_name": "more"}]}
    for card in ({}, several):
        with serve(org__data=Repo(files=dataset_files(), card=card)) as hub:
            _, found = run(tmp_path, "--dataset", "org/data", *FINE_TUNE, url=hub.url)
        assert sizes(found)["dataset as Arrow"] == 3 * 31_000
        assert "dataset as Arrow: 3 x .parquet." in found["assumed"]
        assert "steps" not in found["schedule"]


def test_the_hub_is_asked_once_where_it_does_not_answer(hub, tmp_path):
    hub.down = True
    environ = {"PATH": os.environ["PATH"], "HOME": str(tmp_path), "HF_ENDPOINT": hub.url}
    done = subprocess.run(
        [sys.executable, "-m", "gradience", "preflight", "--model", "org/base"],
        capture_output=True,
        text=True,
        check=False,
        cwd=tmp_path,
        env=environ,
    )
    assert done.stderr == "", "no word of the client's"
    assert "the Hub did not answer" in " ".join(done.stdout.split())
    assert len([path for _, path in hub.requests if "org/base" in path]) == 1


@pytest.mark.parametrize("page", ["", "<html>Log in to this network</html>", "{}"])
def test_a_hub_that_does_not_answer_is_said_and_nothing_is_guessed(hub, page, tmp_path):
    hub.down, hub.page = not page, page.encode()
    code, found = run(tmp_path, *LORA, url=hub.url)
    assert (code, found["verdict"]) == (1, "unknown")
    assert sizes(found)["model download"] is None
    told = " ".join(found["unknown"])
    assert "org/base is neither a path here nor in the cache, and the Hub did not answer" in told


def local_base(folder: Path, megabytes: int) -> Path:
    folder.mkdir()
    save_file({"w.weight": np.ones((megabytes, 250_000), np.float32)}, folder / "model.safetensors")
    return folder


def settings(out: Path, model: Path, **more: object) -> RunSettings:
    plain = {"model": str(model), "output_dir": str(out), "steps": 10, "save_steps": 1}
    return RunSettings(**{**plain, "export": "none", **more})


def ask(asked: RunSettings, home: Path, **more):
    return preflight(asked, environ={}, home=home, host=Host(cwd=home), online=False, **more)


def test_a_full_tmpfs_says_until_which_step_and_what_would_help(tmp_path):
    model = local_base(tmp_path / "base", 1)
    with tmpfs(tmp_path / "small", "size=20m") as disk:
        asked = []

        def planner(path, wanted):
            asked.append((path, wanted))
            return Cleaning(path=str(path), command="gradience cache clean")

        found = ask(settings(disk / "out", model), tmp_path, planner=planner)
        # Weights and AdamW's state are 3 MB a checkpoint.
        assert (found.verdict, found.until_step) == ("until", 6)
        assert any("save_total_limit=5 makes it fit" in line for line in found.advice)
        assert asked == [(disk / "out", found.disks[0].peak.bytes)]
        assert ask(settings(disk / "out", model, save_total_limit=5), tmp_path).verdict == "fits"


def test_inodes_run_out_before_bytes(tmp_path):
    model = local_base(tmp_path / "base", 1)
    with tmpfs(tmp_path / "small", "size=100m,nr_inodes=40") as disk:
        found = ask(settings(disk / "out", model), tmp_path)
        assert found.verdict == "until"


@pytest.mark.root
def test_a_quota_that_df_does_not_show_counts(tmp_path):
    model = local_base(tmp_path / "base", 1)
    with btrfs_with_quota(tmp_path / "quota", 20_000_000) as disk:
        found = ask(settings(disk / "out", model, save_total_limit=2), tmp_path)
        assert found.verdict == "fits"
        found = ask(settings(disk / "out", model), tmp_path)
        assert (found.verdict, found.until_step) == ("until", 6)


def test_two_places_on_one_disk_share_its_room(tmp_path):
    with tmpfs(tmp_path / "small", "size=20m") as disk:
        half = {"bytes": 12_000_000, "when": "start"}
        others = tuple(Other(what=n, path=str(disk / n), **half) for n in ("a", "b"))
        found = ask(RunSettings(save_strategy="no", others=others[:1]), tmp_path)
        assert found.verdict == "fits"
        found = ask(RunSettings(save_strategy="no", others=others), tmp_path)
        assert (found.verdict, len(found.disks)) == ("no", 1)


def test_a_local_dataset_gets_its_arrow_and_map_copies(tmp_path):
    (tmp_path / "train.jsonl").write_bytes(b"x" * 100_000)
    asked = RunSettings(dataset="train.jsonl", map_copies=2, save_strategy="no")
    found = ask(asked, tmp_path)
    written = {w.what: w.bytes for d in found.disks for w in d.writes}
    assert written == {"dataset as Arrow": 100_000, "copies by map()": 200_000}
    assert "dataset as Arrow: 1 x .jsonl." in found.assumed


def test_what_cannot_be_meant_is_refused(tmp_path):
    with pytest.raises(UsageError, match="there is no such directory, and it is no Hub id"):
        ask(RunSettings(model="./no/such/place"), tmp_path)
    (tmp_path / "model.safetensors").write_bytes(b"")  # a path that exists is not one of the Hub
    with pytest.raises(UsageError, match="there is no such directory"):
        ask(RunSettings(model="model.safetensors"), tmp_path)
