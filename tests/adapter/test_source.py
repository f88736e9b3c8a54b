"""find_adapters: what a path or a Hub id names, and what is said when it names nothing."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from factories_adapters import (
    diffusers_arrays,
    kohya_arrays,
    peft_arrays,
    peft_config,
    safetensors_bytes,
    write_peft,
    write_safetensors,
)
from gradience.adapter.hub import parse_hub_id
from gradience.adapter.source import find_adapters
from gradience.errors import AdapterNotFoundError, GradienceError, UnreadableError
from hub_server import COMMIT, Hub, Repo, serve


def names(target: Path) -> list[str]:
    return [location.name for location in find_adapters(target)]


def refusal(target: Path | str) -> str:
    """The message and the remedy of the error that finding raises."""
    with pytest.raises(GradienceError) as caught:
        find_adapters(target)
    assert caught.value.exit_code == 3
    return f"{caught.value}\n{caught.value.remedy}"


# --- one adapter -----------------------------------------------------------------------------


def test_a_peft_directory_is_its_weights_with_its_config(tmp_path):
    (location,) = find_adapters(write_peft(tmp_path / "run"))
    assert location.name == "run"
    assert location.weights == tmp_path / "run" / "adapter_model.safetensors"
    assert location.config == tmp_path / "run" / "adapter_config.json"
    assert location.alternatives == ()
    assert location.source == str(tmp_path / "run")


def test_naming_the_config_means_its_directory(tmp_path):
    (location,) = find_adapters(write_peft(tmp_path / "run") / "adapter_config.json")
    assert location.weights.name == "adapter_model.safetensors"


def test_safetensors_win_over_bin_and_the_other_is_named(tmp_path):
    (write_peft(tmp_path) / "adapter_model.bin").write_bytes(b"PK")
    (location,) = find_adapters(tmp_path)
    assert location.weights.name == "adapter_model.safetensors"
    assert location.alternatives == (tmp_path / "adapter_model.bin",)


def test_the_bin_that_was_named_is_the_one_that_is_read(tmp_path):
    (write_peft(tmp_path) / "adapter_model.bin").write_bytes(b"PK")
    (location,) = find_adapters(tmp_path / "adapter_model.bin")
    assert location.weights.name == "adapter_model.bin"
    assert location.config == tmp_path / "adapter_config.json"


def test_a_config_is_never_paired_with_weights_of_another_name(tmp_path):
    write_peft(tmp_path)
    other = write_safetensors(tmp_path / "other.safetensors", peft_arrays(seed=9))
    assert find_adapters(other)[0].config is None
    assert [f.weights.name for f in find_adapters(tmp_path)] == ["adapter_model.safetensors"]


def test_a_diffusers_directory_needs_no_config(tmp_path):
    write_safetensors(tmp_path / "pytorch_lora_weights.safetensors", diffusers_arrays())
    (location,) = find_adapters(tmp_path)
    assert location.config is None
    assert location.name == tmp_path.name


def test_a_lone_file_is_the_adapter_of_its_directory(tmp_path):
    write_safetensors(tmp_path / "style.safetensors", kohya_arrays())
    (tmp_path / "optimizer.safetensors").write_bytes(b"")
    (location,) = find_adapters(tmp_path)
    assert location.weights.name == "style.safetensors"


def test_the_checkpoints_below_an_adapter_are_not_the_answer(tmp_path):
    write_peft(tmp_path / "run")
    write_peft(tmp_path / "run" / "checkpoint-500", seed=1)
    assert names(tmp_path / "run") == ["run"]


# --- several adapters ------------------------------------------------------------------------


def test_checkpoints_are_listed_in_the_order_of_their_numbers(tmp_path):
    for step in (1000, 500, 90):
        write_peft(tmp_path / f"checkpoint-{step}", seed=step)
    assert names(tmp_path) == ["checkpoint-90", "checkpoint-500", "checkpoint-1000"]


def test_the_epochs_of_a_kohya_directory_are_one_adapter_each(tmp_path):
    for name in ("style", "style-000010", "style-000002"):
        write_safetensors(tmp_path / f"{name}.safetensors", kohya_arrays())
    assert names(tmp_path) == ["style", "style-000002", "style-000010"]


def test_runs_are_found_at_any_depth_and_hidden_directories_are_not_searched(tmp_path):
    write_peft(tmp_path / "a" / "seed0")
    write_peft(tmp_path / "b" / "c" / "seed1", seed=1)
    write_peft(tmp_path / ".git" / "lfs", seed=2)
    write_peft(tmp_path / "node_modules" / "x", seed=3)
    assert names(tmp_path) == ["a/seed0", "b/c/seed1"]


def test_one_adapter_under_two_names_is_counted_once(tmp_path):
    write_peft(tmp_path / "run")
    (tmp_path / "best").symlink_to("run")
    (tmp_path / "copy").mkdir()
    for name in ("adapter_model.safetensors", "adapter_config.json"):
        (tmp_path / "copy" / name).hardlink_to(tmp_path / "run" / name)
    assert len(names(tmp_path)) == 1


def test_a_link_to_an_adapter_elsewhere_counts_but_is_not_walked_through(tmp_path):
    write_peft(tmp_path / "elsewhere" / "run")
    write_peft(tmp_path / "elsewhere" / "run2", seed=1)
    (tmp_path / "runs").mkdir()
    (tmp_path / "runs" / "best").symlink_to(tmp_path / "elsewhere" / "run")
    (tmp_path / "runs" / "all").symlink_to(tmp_path / "elsewhere")
    assert names(tmp_path / "runs") == ["best"]


def test_a_loop_of_links_ends(tmp_path):
    write_peft(tmp_path / "runs" / "a")
    (tmp_path / "runs" / "loop").symlink_to(tmp_path / "runs")
    (tmp_path / "runs" / "self").symlink_to("self")
    assert names(tmp_path / "runs") == ["a"]


def test_files_of_a_hub_snapshot_may_be_links_into_its_blobs(tmp_path):
    blob = write_safetensors(tmp_path / "blobs" / "ab12", peft_arrays())
    snapshot = tmp_path / "snapshots" / "c0ffee"
    snapshot.mkdir(parents=True)
    (snapshot / "adapter_model.safetensors").symlink_to(blob)
    (snapshot / "adapter_config.json").write_text(json.dumps(peft_config()))
    assert names(tmp_path) == ["snapshots/c0ffee"]


def test_a_run_without_weights_does_not_hide_its_neighbours(tmp_path):
    write_peft(tmp_path / "good")
    (tmp_path / "broken").mkdir()
    (tmp_path / "broken" / "adapter_config.json").write_text("{}")
    assert names(tmp_path) == ["broken", "good"]


def test_a_tree_deeper_than_the_limit_is_skipped_and_said(tmp_path):
    write_peft(tmp_path.joinpath("run"))
    write_peft(tmp_path.joinpath(*"abcdefghij"), seed=1)
    said: list[str] = []
    assert [f.name for f in find_adapters(tmp_path, notice=said.append)] == ["run"]
    assert "8 levels" in said[0]


# --- nothing there ---------------------------------------------------------------------------


def test_a_missing_path_names_its_nearest_sibling(tmp_path):
    write_peft(tmp_path / "checkpoint-500")
    text = refusal(tmp_path / "checkpoint-50")
    assert "there is no such file or directory, and it is no Hub id" in text
    assert str(tmp_path / "checkpoint-500") in text


def test_an_empty_directory_says_so(tmp_path):
    assert "is empty" in refusal(tmp_path)


def test_a_config_without_weights_says_which_weights(tmp_path):
    (tmp_path / "adapter_config.json").write_text("{}")
    write_peft(tmp_path / "checkpoint-10")
    assert "neither adapter_model.safetensors nor adapter_model.bin" in refusal(tmp_path)


def test_a_full_model_is_named_as_one(tmp_path):
    (tmp_path / "config.json").write_text("{}")
    (tmp_path / "model-00001-of-00002.safetensors").write_bytes(b"")
    text = refusal(tmp_path)
    assert "full model (model-00001-of-00002.safetensors)" in text
    assert "--base-model" in text


def test_a_directory_without_adapter_lists_what_it_has(tmp_path):
    for i in range(7):
        (tmp_path / f"note{i}.txt").write_text("x")
    text = refusal(tmp_path)
    assert "note0.txt" in text
    assert "and 2 more" in text


def test_a_link_that_loops_or_dangles_is_one_sentence(tmp_path):
    (tmp_path / "loop").symlink_to("loop")
    (tmp_path / "gone").symlink_to("nowhere")
    assert "cannot be opened" in refusal(tmp_path / "loop")
    assert "nowhere, which does not exist" in refusal(tmp_path / "gone")


@pytest.mark.parametrize("text", ["", "~nobody-of-this-name/run"])
def test_a_text_that_is_no_path_is_one_sentence(text):
    refusal(text)


def test_a_nul_in_a_path_is_one_sentence():
    assert "cannot be opened" in refusal("a\0b")


# Everything is imported before the switch: the interpreter may lie where nobody cannot go.
AS_NOBODY = """
import os, sys
from gradience.adapter.source import find_adapters
from gradience.errors import GradienceError
os.seteuid(65534)
said = []
try:
    print([f.name for f in find_adapters(sys.argv[1], notice=said.append)], said)
except GradienceError as error:
    print(type(error).__name__, error)
"""


@pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() != 0, reason="needs root")
@pytest.mark.parametrize("closed", ["runs", "runs/closed"])
def test_a_directory_that_may_not_be_read_is_named(tmp_path, closed):
    write_peft(tmp_path / "runs" / "open")
    write_peft(tmp_path / "runs" / "closed", seed=1)
    (tmp_path / closed).chmod(0o000)
    for parent in (tmp_path, *tmp_path.parents[:-2]):
        parent.chmod(0o755)
    done = subprocess.run(
        [sys.executable, "-c", AS_NOBODY, str(tmp_path / "runs")],
        capture_output=True,
        text=True,
        check=False,
    )
    (tmp_path / closed).chmod(0o755)
    assert done.returncode == 0, done.stderr
    if closed == "runs":
        assert done.stdout.startswith("UnreadableError")
        assert "Permission denied" in done.stdout
    else:
        assert done.stdout.startswith("['open']")
        assert "closed cannot be listed: Permission denied" in done.stdout


# --- the Hub ---------------------------------------------------------------------------------

PEFT_FILES = {
    "adapter_config.json": json.dumps(peft_config()).encode(),
    "adapter_model.safetensors": safetensors_bytes(peft_arrays()),
    "README.md": b"# a model card",
    "optimizer.pt": b"x" * 1000,
}
ASK = """
import json, sys
from gradience.adapter.source import find_adapters
from gradience.errors import GradienceError
answers, said = [], []
for target in sys.argv[1:]:
    try:
        found = find_adapters(target, notice=said.append)
        answers.append([[f.source, str(f.weights), str(f.config)] for f in found])
    except GradienceError as error:
        answers.append([type(error).__name__, str(error), error.remedy])
print(json.dumps([answers, said]))
"""


def ask(hub: Hub | None, home: Path, *targets: str, **extra: str):
    """find_adapters in a fresh process whose Hub is the loop-back server.

    An answer is a list of (source, weights, config), or (error, message, remedy); then what was
    said, then all output.
    """
    env = {k: v for k, v in os.environ.items() if not k.startswith(("HF_", "HUGGING"))}
    env |= {
        "HF_ENDPOINT": hub.url if hub else "http://127.0.0.1:9",
        "HF_HOME": str(home),
        "HF_HUB_DISABLE_XET": "1",
        "HF_HUB_DISABLE_TELEMETRY": "1",
        "NO_PROXY": "127.0.0.1",
        **extra,
    }
    done = subprocess.run(
        [sys.executable, "-c", ASK, *targets],
        env=env,
        cwd=home,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    answers, said = json.loads(done.stdout.splitlines()[-1])
    return answers, said, done.stdout + done.stderr


def test_only_the_adapter_is_fetched_once_and_then_found_offline(tmp_path):
    with serve(org__adapter=Repo(files=PEFT_FILES)) as hub:
        ((first,),), _, _ = ask(hub, tmp_path, "org/adapter")
        assert first[0] == f"org/adapter@{COMMIT}"
        assert Path(first[1]).read_bytes() == PEFT_FILES["adapter_model.safetensors"]
        assert Path(first[2]).read_bytes() == PEFT_FILES["adapter_config.json"]
        assert sorted(hub.fetched()) == ["adapter_config.json", "adapter_model.safetensors"]

        hub.requests.clear()
        answers, _, _ = ask(hub, tmp_path, "org/adapter", f"org/adapter@{COMMIT}")
        assert answers == [[first], [first]]
        assert hub.fetched() == []
        assert len(hub.requests) == 1  # which commit main is now; a commit does not change

        hub.requests.clear()
        assert ask(hub, tmp_path, "org/adapter", HF_HUB_OFFLINE="1")[0] == [[first]]
        assert hub.requests == []

        hub.down = True
        answers, said, _ = ask(hub, tmp_path, "org/adapter")
        assert answers == [[first]]
        assert "the Hub answers 503" in said[0]
    answers, said, _ = ask(None, tmp_path, "org/adapter")
    assert answers == [[first]]
    assert "cannot be reached" in said[0]


def test_a_path_that_exists_is_never_looked_up(tmp_path):
    write_peft(tmp_path / "org" / "adapter")
    (answer,), _, _ = ask(None, tmp_path, "org/adapter")
    assert answer[0][0] == "org/adapter"


def test_revision_folder_and_file_can_be_named(tmp_path):
    files = {f"checkpoint-5/{name}": data for name, data in PEFT_FILES.items()}
    files |= {f"epoch{i}.safetensors": safetensors_bytes(kohya_arrays()) for i in (1, 2)}
    with serve(org__runs=Repo(files=files, revisions=("main", "v2"))) as hub:
        targets = ("org/runs@v2:checkpoint-5", "org/runs:epoch2.safetensors", "org/runs")
        ((folder,), (file,), several), _, _ = ask(hub, tmp_path, *targets)
        assert folder[1].endswith("checkpoint-5/adapter_model.safetensors")
        assert folder[2].endswith("checkpoint-5/adapter_config.json")
        assert file[1].endswith("epoch2.safetensors")
        assert file[2] == "None"
        assert "2 weights files: epoch1.safetensors, epoch2.safetensors" in several[1]
        assert "org/runs@main:epoch1.safetensors" in several[2]

        cached, _, _ = ask(hub, tmp_path, *targets[:2], HF_HUB_OFFLINE="1")
        assert cached == [[folder], [file]]


REFUSALS = {
    "org/nowhere": ("is not on the Hub, or is private", "hf auth login"),
    "org/gated": ("is gated", "Ask for access"),
    "org/adapter@v9": ("has no revision 'v9'", "leave @revision out"),
    "org/model": ("is a full model (model.safetensors)", "--base-model"),
    "org/nested": ("has no adapter there, but in best", "org/nested@main:best"),
    "org/unsaved": ("neither adapter_model.safetensors", "save_pretrained"),
    "org/adapter:nothing": ("has no adapter there, but in its root", "Name one: org/adapter@main"),
}


def test_each_refusal_of_the_hub_is_one_sentence_without_the_token(tmp_path):
    secret = "hf_" + "s3cret" * 6
    repos = {
        "org__adapter": Repo(files=PEFT_FILES),
        "org__gated": Repo(files=PEFT_FILES, gated=True),
        "org__model": Repo(files={"model.safetensors": b"", "config.json": b"{}"}),
        "org__nested": Repo(files={"best/adapter_config.json": b"{}"}),
        "org__unsaved": Repo(files={"adapter_config.json": b"{}"}),
    }
    with serve(**repos) as hub:
        answers, _, output = ask(hub, tmp_path, *REFUSALS, HF_TOKEN=secret)
        assert f"Bearer {secret}" in hub.tokens  # it was used
    assert secret not in output
    for (target, (reason, remedy)), answer in zip(REFUSALS.items(), answers, strict=True):
        assert answer[0] == "AdapterNotFoundError"
        assert reason in answer[1]
        assert target.partition("@")[0].partition(":")[0] in answer[1]
        assert remedy in answer[2]


@pytest.mark.parametrize("offline", ["0", "1"])
def test_without_cache_and_hub_the_remedy_says_how_to_go_on(tmp_path, offline):
    (answer,), _, _ = ask(None, tmp_path, "org/adapter", HF_HUB_OFFLINE=offline)
    assert "org/adapter@main is not in the cache" in answer[1]
    assert ("HF_HUB_OFFLINE" if offline == "1" else "cannot be reached") in answer[1]
    assert "unset HF_HUB_OFFLINE" in answer[2]


def test_a_cache_that_cannot_be_written_is_the_disks_fault_and_not_the_hubs(tmp_path):
    (tmp_path / "file").write_bytes(b"not a directory")
    with serve(org__adapter=Repo(files=PEFT_FILES)) as hub:
        (answer,), _, _ = ask(
            hub, tmp_path, "org/adapter", HF_HUB_CACHE=str(tmp_path / "file" / "hub")
        )
    assert answer[0] == "StorageError"
    assert "org/adapter cannot be written into the cache" in answer[1]
    assert "HF_HOME" in answer[2]


@pytest.mark.parametrize(
    "text", ["a", "./a/b", "/a/b", "a/b/c", "a/../b", "a/b.safetensors", "a b/c", "a--b/c", "~/a"]
)
def test_what_can_only_be_a_path_is_no_hub_id(text):
    assert parse_hub_id(text) is None


def test_errors_of_finding_are_of_the_kind_unreadable():
    assert issubclass(AdapterNotFoundError, UnreadableError)
