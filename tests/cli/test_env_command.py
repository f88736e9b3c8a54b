"""`gradience env` as a user meets it: a process, two streams, an exit code."""

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from factories_disks import tmpfs
from gradience import artifacts
from gradience.storage.environment.explain import SCHEMA, EnvironmentReport
from gradience.storage.environment.exports import EXPORTS
from gradience.storage.environment.platforms import PLATFORMS
from gradience.storage.environment.variables import VARIABLES


@pytest.fixture
def home(tmp_path: Path) -> Path:
    path = tmp_path / "home"
    path.mkdir()
    return path


@pytest.fixture
def gradience(home: Path):
    """Run the command line with a home of its own and none of the variables of this machine."""
    hints = {n for p in PLATFORMS.values() for n in p.variables}
    kept = {k: v for k, v in os.environ.items() if k not in VARIABLES and k not in hints}

    def run(*args: object, **environ: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, "-m", "gradience", "env", *map(str, args)],
            capture_output=True,
            text=True,
            check=False,
            cwd=home,
            env={**kept, "HOME": str(home), "SHELL": "/bin/bash", **environ},
        )

    return run


def evaluated(text: str, *names: str) -> dict[str, str]:
    script = 'eval "$1"; env -0'
    done = subprocess.run(["bash", "-c", script, "bash", text], capture_output=True, check=True)
    read = dict(i.partition("=")[::2] for i in done.stdout.decode().split("\0"))
    return {name: read[name] for name in names}


def test_the_local_layout_is_printed_and_made(gradience, home: Path) -> None:
    done = gradience("--platform", "local")
    assert done.returncode == 0, done.stderr
    cache = f"{home}/.cache/gradience"
    assert evaluated(done.stdout, "HF_HOME", "GRADIENCE_CACHE_DIR", "HF_TOKEN_PATH") == {
        "HF_HOME": f"{cache}/hf_home",
        "GRADIENCE_CACHE_DIR": cache,
        "HF_TOKEN_PATH": f"{home}/.cache/huggingface/token",
    }
    assert Path(cache, "hub").is_dir()
    assert not (home / ".cache/huggingface").exists()
    again = gradience("--platform", "local")
    assert (again.stdout, again.stderr) == (done.stdout, "")


def test_help_names_every_variable_and_each_directory_made_is_told(gradience, home: Path) -> None:
    done = gradience("--platform", "local")
    named = {line[7:].partition("=")[0] for line in done.stdout.splitlines() if line[0] != "#"}
    said = re.sub(r"\s+", " ", gradience("--help").stdout)
    assert named == set(re.findall(r"\b[A-Z]+(?:_[A-Z]+)+|TMPDIR", said.partition("eval")[0]))
    made = {line.removeprefix("made ") for line in done.stderr.splitlines()}
    there = {str(path) for path in home.rglob("*")}
    assert there == made | {str(parent) for path in made for parent in Path(path).parents} & there
    assert len(made) >= 12


def test_what_is_printed_set_is_stable(gradience, home: Path) -> None:
    first = gradience("--root", home / "disk")
    values = dict(
        line.removeprefix("export ").replace("'", "").split("=", 1)
        for line in first.stdout.splitlines()
        if line.startswith("export")
    )
    again = gradience("--root", home / "disk", **values)
    assert again.stdout == first.stdout


def test_a_hint_without_its_disk_makes_nothing_at_the_promised_place(gradience) -> None:
    done = gradience("--no-create", RUNPOD_POD_ID="x")
    assert done.returncode == 0
    if not os.path.ismount("/workspace"):
        assert "nothing is mounted at /workspace" in done.stdout
        assert "/workspace/" not in "".join(
            line for line in done.stdout.splitlines() if line.startswith("export")
        )


def test_a_platform_that_is_not_here_is_printed_and_not_made(gradience, home: Path) -> None:
    if Path("/runpod-volume").exists():
        pytest.skip("this machine has a /runpod-volume")
    done = gradience("--platform", "runpod_serverless")
    assert done.returncode == 0
    assert "export HF_HOME='/runpod-volume/hf_cache/hf_home'" in done.stdout
    assert "export HF_TOKEN_PATH='/root/.cache/huggingface/token'" in done.stdout
    assert "No directory was made" in done.stderr
    assert not Path("/runpod-volume").exists()


@pytest.mark.parametrize(("name", "place"), [("kaggle", "/kaggle"), ("colab", "/content")])
def test_a_directory_of_another_platform_is_not_made_here(name: str, place: str, gradience) -> None:
    if Path(place).exists():
        pytest.skip(f"this machine has a {place}")
    done = gradience("--platform", name)
    assert f"export HF_HOME='{place}" in done.stdout
    assert "No directory was made" in done.stderr
    assert not Path(place).exists()


def test_nothing_is_made_when_asked_and_for_other_machines(gradience, home: Path) -> None:
    gradience("--no-create", "--root", home / "disk")
    gradience("--root", home / "disk", "--format", "dockerfile")
    gradience("--root", home / "disk", "--explain")
    gradience("--root", home / "disk", "--json")
    assert not (home / "disk").exists()


@pytest.mark.parametrize("name", list(EXPORTS))
def test_every_format_is_printed(name: str, gradience) -> None:
    done = gradience("--no-create", "--platform", "docker", "--format", name)
    assert done.returncode == 0, done.stderr
    assert "/app/cache/hub" in done.stdout
    assert "HF_HUB_CACHE" in done.stdout


def test_an_image_has_its_own_disks_and_not_those_of_this_machine(gradience, home: Path) -> None:
    done = gradience("--format", "dockerfile", RUNPOD_POD_ID="x")
    assert 'VOLUME ["/app/cache"]' in done.stdout
    assert "as asked" not in done.stdout, "nobody asked"
    assert str(home) not in done.stdout
    assert done.stderr == ""


@pytest.mark.parametrize("name", ["dockerfile", "compose", "k8s"])
def test_a_volume_that_is_mounted_empty_takes_no_temporary_files(name: str, gradience) -> None:
    lines = gradience("--format", name).stdout.splitlines()
    at = next(i for i, line in enumerate(lines) if "TMPDIR" in line)
    assert '"/tmp"' in lines[at] + lines[at + 1]


def test_a_token_stays_where_it_is_and_leaves_the_working_directory(gradience, home: Path) -> None:
    kept = gradience("--no-create", HF_HOME=str(home / "hf")).stdout
    assert f"export HF_TOKEN_PATH='{home}/hf/token'" in kept
    usual = f"export HF_TOKEN_PATH='{home}/.cache/huggingface/token'"
    assert usual in gradience("--no-create", HF_HOME="$NOT_SET/hf").stdout
    stray = home / "$NOT_SET" / "hf" / "token"
    stray.parent.mkdir(parents=True)
    stray.write_text("hf_x")
    done = gradience("--no-create", HF_HOME="$NOT_SET/hf")
    assert usual in done.stdout
    command = next(x for x in done.stderr.splitlines() if "by mistake" in x).split("Move it: ")[1]
    subprocess.run(["sh", "-c", command], check=True)
    assert (home / ".cache/huggingface/token").read_text() == "hf_x"


def test_the_switches_follow_the_choice(gradience) -> None:
    plain = gradience("--no-create", "--transfer", "plain").stdout
    assert "export HF_HUB_DISABLE_XET='1'" in plain
    assert "export HF_HUB_ENABLE_HF_TRANSFER='0'" in plain
    fast = gradience("--no-create", "--transfer", "fast").stdout
    assert "HF_XET_HIGH_PERFORMANCE" in fast or "HF_TRANSFER" in fast
    auto = gradience("--no-create", HF_HUB_DISABLE_XET="1")
    assert "export HF_HUB_DISABLE_XET" not in auto.stdout
    assert "refuses files over 50 GB" in auto.stderr


def test_a_cache_left_behind_is_said_with_its_size_and_a_way_to_move_it(
    gradience, home: Path
) -> None:
    hub = home / ".cache/huggingface/hub"
    hub.mkdir(parents=True)
    (hub / "blob").write_bytes(b"x" * 3_000_000)
    done = gradience("--root", home / "disk", "--platform", "runpod")
    assert "3.00 MB would be left behind" in done.stderr
    assert f"gradience cache move '{hub}' '{home}/disk/hf_cache/hub'" in done.stderr
    # what is printed is done as printed
    command = next(line for line in done.stderr.splitlines() if "gradience cache move" in line)
    command = command.replace("gradience", f"{sys.executable} -m gradience", 1) + " --yes"
    environ = {"HOME": str(home), "PATH": os.environ["PATH"]}
    subprocess.run(["sh", "-c", command.strip().removeprefix("$ ")], check=True, env=environ)
    assert (home / "disk/hf_cache/hub/blob").stat().st_size == 3_000_000
    assert "left behind" not in gradience("--root", home / "disk", "--platform", "runpod").stderr


def test_every_variable_is_explained(gradience) -> None:
    done = gradience("--explain", HF_HOME="$SCRATCH/hf", TRANSFORMERS_CACHE="/old", COLUMNS="300")
    assert done.returncode == 0
    for name in VARIABLES:
        assert name in done.stdout
    assert "$SCRATCH/hf" in done.stdout
    assert "Read by nobody since transformers 5.0" in done.stdout


def test_json_is_the_artifact_and_nothing_else(gradience, home: Path) -> None:
    done = gradience("--json", "--root", home / "disk", HF_HOME="")
    found = artifacts.decode(done.stdout.encode(), SCHEMA, EnvironmentReport, source="stdout")
    assert found.values["HF_HOME"].startswith(str(home / "disk"))
    by_name = {v.name: v for v in found.variables}
    assert by_name["HF_HOME"].current == ""
    assert by_name["HF_HUB_CACHE"].current is None
    assert json.loads(done.stdout)["schema"] == SCHEMA


@pytest.mark.parametrize(
    ("arguments", "said", "hint"),
    [
        (["--platform", "runpodd"], "no platform named 'runpodd'", "Did you mean 'runpod'?"),
        (["--format", "bsh"], "no format named 'bsh'", "bash"),
        (["--platform", "modal"], "no disk has a fixed place", "--root DIR"),
        (["--platform", "lambda"], "no disk has a fixed place", "--root DIR"),
        (["--root", "/a\nb"], "newline", "printable"),
        (["--root", "/proc/nothing/here"], "cannot be created", ""),
        (["--root", ""], "empty", "variable"),
        (["--install", "--format", "powershell"], "not for powershell", "Redirect"),
        (["--install", "--format", "k8s"], "not for k8s", "Redirect"),
    ],
    ids=str,
)
def test_an_error_prints_nothing_to_evaluate(
    arguments: list[str], said: str, hint: str, gradience
) -> None:
    done = gradience(*arguments)
    assert done.returncode in (2, 5)
    assert done.stdout == ""
    assert said in done.stderr
    assert hint in done.stderr
    assert "Traceback" not in done.stderr


def test_install_for_a_shell_that_is_not_known_asks_for_its_name(gradience, home: Path) -> None:
    done = gradience("--install", "--root", home / "disk", SHELL="/bin/tcsh")
    assert done.returncode == 2
    assert "--format bash|zsh|fish" in done.stderr
    assert list(home.iterdir()) == []


def test_install_is_undone(gradience, home: Path) -> None:
    (home / ".bashrc").write_bytes(b"export A=1")
    done = gradience("--install", "--root", home / "disk")
    assert done.returncode == 0, done.stderr
    assert done.stdout == ""
    assert "wrote" in done.stderr
    said = subprocess.run(
        ["bash", "-i", "-c", "echo $HF_HOME $A"],
        capture_output=True,
        text=True,
        check=True,
        env={"HOME": str(home), "PATH": os.environ["PATH"]},
        stdin=subprocess.DEVNULL,
    )
    assert said.stdout.split()[-1] == "1"
    assert f"{home}/disk" in said.stdout
    gone = gradience("--uninstall").stderr
    assert "removed" in gone
    assert "The directories that it named stay" in gone
    assert (home / "disk").is_dir()
    assert not (home / ".config/gradience").exists()
    assert (home / ".bashrc").read_bytes() == b"export A=1"
    assert "nothing was installed" in gradience("--uninstall").stderr


def test_a_directory_of_another_user_below_tmp_is_refused(tmp_path: Path) -> None:
    from gradience.errors import StorageError  # noqa: PLC0415
    from gradience.storage.environment import directories  # noqa: PLC0415
    from gradience.storage.environment.layout import Layout, Setting  # noqa: PLC0415

    if os.geteuid() != 0:
        pytest.skip("giving a directory to another user needs root")
    import tempfile  # noqa: PLC0415

    with tempfile.TemporaryDirectory(dir="/tmp") as name:
        setting = Setting(name="TRITON_CACHE_DIR", value=f"{name}/triton", reason="")
        made = Layout(platform="local", root=tmp_path, settings=(setting,))
        assert directories.create_directories(made) == (Path(name, "triton"),)
        assert directories.create_directories(made) == ()
        os.chown(name, 65534, 65534)
        with pytest.raises(StorageError, match="belongs to another user"):
            directories.create_directories(made)
        os.chown(name, 0, 0)


@pytest.mark.root
def test_a_root_in_memory_and_without_room_is_said(gradience, tmp_path):
    with tmpfs(tmp_path / "small", "size=8m") as root:
        done = gradience("--root", root, "--no-create")
    assert done.returncode == 0
    assert "lies in memory" in done.stderr
    assert "has room for" in done.stderr
