"""Hints propose, measured mounts decide."""

from pathlib import Path

import pytest

from factories_mounts import GB, container_disk, make_mount, network_volume
from gradience.storage.environment.platforms import detect
from gradience.system.records import Mount

HOME = Path("/root")

# name, environ, marks, mounts beside the container's disk, root, part of the sentence
FOUND: list[tuple[str, dict[str, str], tuple[str, ...], list[Mount], str, str]] = [
    ("runpod", {"RUNPOD_POD_ID": "x"}, (), [network_volume("/workspace")], "/workspace", "cluster"),
    (
        "runpod",
        {"RUNPOD_POD_ID": "x"},
        ("/.dockerenv",),
        [make_mount("/workspace")],
        "/workspace",
        "RUNPOD_POD_ID is set",
    ),
    ("runpod", {}, ("/.dockerenv",), [network_volume("/workspace")], "/workspace", "runpod.net"),
    (
        "runpod_serverless",
        {"RUNPOD_ENDPOINT_ID": "e", "RUNPOD_POD_ID": "x"},
        (),
        [network_volume("/runpod-volume")],
        "/runpod-volume",
        "network volume",
    ),
    ("vast", {"VAST_CONTAINERLABEL": "C.1"}, ("/.dockerenv",), [], "/workspace", "on this machine"),
    (
        "lambda",
        {},
        (),
        [
            make_mount("/lambda/nfs/a", network=True, free_bytes=10 * GB),
            make_mount("/lambda/nfs/b", network=True, free_bytes=90 * GB),
        ],
        "/lambda/nfs/b",
        "persistent file system",
    ),
    (
        "paperspace",
        {"PAPERSPACE_NOTEBOOK_REPO_ID": "r"},
        (),
        [make_mount("/storage", network=True), make_mount("/notebooks")],
        "/storage",
        "persistent storage",
    ),
    (
        "paperspace",
        {"PAPERSPACE_NOTEBOOK_REPO_ID": "r"},
        (),
        [make_mount("/storage", read_only=True), make_mount("/notebooks")],
        "/notebooks",
        "notebook's disk",
    ),
    ("colab", {"COLAB_RELEASE_TAG": "t"}, (), [], "/content", "COLAB_RELEASE_TAG"),
    ("kaggle", {"KAGGLE_KERNEL_RUN_TYPE": "Batch"}, (), [], "/kaggle/temp", "KAGGLE"),
    ("sagemaker", {"SM_CURRENT_HOST": "algo-1"}, (), [make_mount("/opt/ml")], "/opt/ml", "job's"),
    (
        "modal",
        {"MODAL_TASK_ID": "t"},
        (),
        [make_mount("/models", network=True), make_mount("/etc/hosts")],
        "/models",
        "roomiest",
    ),
    ("hf_spaces", {"SPACE_ID": "a/b"}, (), [make_mount("/data")], "/data", "SPACE_ID"),
    (
        "databricks",
        {"DATABRICKS_RUNTIME_VERSION": "17"},
        (),
        [make_mount("/local_disk0")],
        "/local_disk0",
        "SSD",
    ),
    (
        "slurm",
        {"SLURM_JOB_ID": "7", "SCRATCH": "/scratch/me"},
        (),
        [make_mount("/scratch", network=True, fs_type="lustre")],
        "/scratch/me",
        "lustre on the network",
    ),
    (
        "kubernetes",
        {"KUBERNETES_SERVICE_HOST": "10.0.0.1"},
        (),
        [make_mount("/mnt/claim"), make_mount("/etc/resolv.conf")],
        "/mnt/claim",
        "roomiest",
    ),
    ("wsl", {"WSL_DISTRO_NAME": "Ubuntu"}, (), [], "/root/.cache/gradience", "WSL_DISTRO_NAME"),
    ("docker", {}, ("/.dockerenv",), [make_mount("/app/cache")], "/app/cache", "/app/cache"),
    ("local", {}, (), [], "/root/.cache/gradience", "No sign of"),
]


@pytest.mark.parametrize(
    ("name", "environ", "marks", "mounts", "root", "said"),
    FOUND,
    ids=[f"{i}-{row[0]}" for i, row in enumerate(FOUND)],
)
def test_a_platform_is_known_by_its_hint_and_its_mount(
    name: str,
    environ: dict[str, str],
    marks: tuple[str, ...],
    mounts: list[Mount],
    root: str,
    said: str,
) -> None:
    found = detect(environ, [container_disk(), *mounts], home=HOME, marks=marks)
    assert (found.name, str(found.root)) == (name, root)
    assert said in found.reason
    assert found.reason.endswith(".")
    assert "\n" not in found.reason


# Hints without the disk: what is said, and nothing of the promised layout.
CONTRADICTED: list[tuple[dict[str, str], tuple[str, ...], list[Mount], str]] = [
    ({"RUNPOD_POD_ID": "x"}, (), [], "nothing is mounted at /workspace"),
    (
        {"RUNPOD_POD_ID": "x"},
        (),
        [network_volume("/workspace", read_only=True)],
        "mounted read-only",
    ),
    ({"RUNPOD_POD_ID": "x"}, (), [make_mount("/workspace", in_memory=True)], "lies in memory"),
    ({"RUNPOD_POD_ID": "x"}, (), [make_mount("/workspace", total_bytes=64 * 10**6)], "64.0 MB"),
    ({}, ("/.dockerenv",), [], "nothing is mounted at /app/cache"),
    ({"container": "podman"}, (), [], "nothing is mounted at /app/cache"),
    ({"SLURM_JOB_ID": "7"}, (), [], "none of its disks is mounted"),
    ({"SLURM_JOB_ID": "7", "SCRATCH": "/scratch/me"}, (), [], "nothing is mounted at /scratch/me"),
    ({"SLURM_JOB_ID": "7", "SCRATCH": "scratch"}, (), [], "none of its disks"),
    ({"KUBERNETES_SERVICE_HOST": "10.0.0.1"}, (), [], "/app/cache"),
    ({"MODAL_TASK_ID": "t"}, (), [make_mount("/etc/hosts")], "no volume is mounted"),
    ({"SPACE_ID": "a/b"}, (), [], "nothing is mounted at /data"),
]


@pytest.mark.parametrize(("environ", "marks", "mounts", "said"), CONTRADICTED, ids=str)
def test_a_hint_without_its_disk_falls_back_to_the_local_layout(
    environ: dict[str, str], marks: tuple[str, ...], mounts: list[Mount], said: str
) -> None:
    found = detect(environ, [container_disk(), *mounts], home=HOME, marks=marks)
    assert (found.name, found.root) == ("local", HOME / ".cache" / "gradience")
    assert said in found.reason
    assert "the local layout" in found.reason


def test_the_next_hint_is_tried_when_the_first_has_no_disk() -> None:
    mounts = [container_disk(), make_mount("/app/cache")]
    found = detect({"RUNPOD_POD_ID": "x"}, mounts, home=HOME, marks={"/.dockerenv"})
    assert (found.name, found.root) == ("docker", Path("/app/cache"))


def test_a_workspace_alone_is_not_runpod() -> None:
    found = detect({}, [container_disk(), make_mount("/workspace")], home=HOME)
    assert found.name == "local"
    assert "gradience env --root /workspace/DIR" in found.notes[0]


@pytest.mark.parametrize(
    ("environ", "mounts", "local"),
    [
        # a network volume: compile caches stay on the container's disk
        (
            {"RUNPOD_POD_ID": "x"},
            [container_disk(), network_volume("/workspace")],
            "/root/.cache/gradience",
        ),
        # a volume of the machine itself: there, where they survive
        (
            {"RUNPOD_POD_ID": "x"},
            [container_disk(), make_mount("/workspace")],
            "/workspace/compile_cache",
        ),
        # the node's own disk, for the length of the job
        (
            {"SLURM_JOB_ID": "1", "SCRATCH": "/scratch/me", "SLURM_TMPDIR": "/tmp/job.1"},
            [
                container_disk(),
                make_mount("/scratch", network=True),
                make_mount("/root", network=True),
            ],
            "/tmp/job.1/gradience",
        ),
        # home on the network, no job directory: /tmp, in a directory of one's own
        (
            {"SLURM_JOB_ID": "1", "SCRATCH": "/scratch/me", "USER": "me"},
            [
                container_disk(),
                make_mount("/scratch", network=True),
                make_mount("/root", network=True),
            ],
            "/tmp/gradience-me",
        ),
        # noexec at home
        (
            {"USER": "me"},
            [container_disk(), make_mount("/root", no_exec=True)],
            "/tmp/gradience-me",
        ),
    ],
    ids=["network", "own", "job", "nfs-home", "noexec"],
)
def test_compile_caches_go_to_a_disk_of_the_machine_that_runs_code(
    environ: dict[str, str], mounts: list[Mount], local: str
) -> None:
    assert str(detect(environ, mounts, home=HOME).local) == local


def test_no_fit_disk_for_code_is_said() -> None:
    everywhere = [
        make_mount("/", network=True),
        make_mount("/tmp", in_memory=True, fs_type="tmpfs"),
    ]
    found = detect({}, everywhere, home=HOME)
    assert found.local == found.root
    assert "No disk of this machine" in found.notes[-1]
