"""The doctor's own readers: libraries in their own processes, profiles, locks, other Pythons."""

import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from factories_disks import as_nobody
from factories_doctor import facts, program
from gradience.errors import UsageError
from gradience.storage.checkpoints.contents import cut_off
from gradience.storage.doctor.facts import Import, Interpreter, Library
from gradience.storage.doctor.former import former
from gradience.storage.doctor.locks import idle_lock_files, lock_test
from gradience.storage.doctor.places import hub_clients, place
from gradience.storage.doctor.probe import probe
from gradience.storage.doctor.profiles import parse, read_profiles
from gradience.storage.doctor.rules import examine
from gradience.storage.environment.readers import Host

PYTHON = Path(sys.executable)


def asked(home: Path, *libraries: str, python: Path = PYTHON, **environ: str) -> Interpreter:
    kept = {k: os.environ[k] for k in ("PATH", "LD_LIBRARY_PATH") if k in os.environ}
    seen = {**kept, "HOME": str(home), **environ}
    return probe(python, environ=seen, home=home, cwd=home, only=libraries)


def test_real_libraries_say_where_they_keep_things(tmp_path: Path) -> None:
    names = ("huggingface_hub", "transformers", "torch", "python")
    found = asked(tmp_path, *names, HF_HOME=str(tmp_path / "hf"), TORCH_HOME=str(tmp_path / "t"))
    assert [x.name for x in found.libraries] == list(names)
    assert [x.problem for x in found.libraries] == [""] * 4
    paths = {(u.library, u.purpose): u.path for u in found.uses}
    assert paths["huggingface_hub", "models and files"] == str(tmp_path / "hf/hub")
    assert paths["transformers", "models and files"] == str(tmp_path / "hf/hub")
    assert paths["transformers", "remote code"] == str(tmp_path / "hf/modules")
    assert paths["torch", "torch.hub models"] == str(tmp_path / "t/hub")
    assert "torchinductor_" in paths["torch", "compiled kernels"]


@pytest.mark.parametrize(("name", "folder"), [("HF_HOME", "xet"), ("HF_XET_CACHE", "")])
def test_an_empty_value_puts_chunks_below_the_working_directory(
    tmp_path: Path, name: str, folder: str
) -> None:
    """As a session of hf_xet 1.8 does: it makes `xet/logs` of the one, `logs` of the other."""
    [use] = asked(tmp_path, "hf_xet", **{name: ""}).uses
    assert use.path == str(tmp_path / folder)


def test_asking_leaves_nothing_but_the_remembered_answer(tmp_path: Path) -> None:
    asked(tmp_path, "huggingface_hub")
    assert [p.name for p in tmp_path.iterdir()] == [".cache"]
    assert [p.name for p in (tmp_path / ".cache").iterdir()] == ["gradience"]


def test_an_answer_is_remembered_until_the_environment_changes(tmp_path: Path) -> None:
    first = asked(tmp_path, "huggingface_hub")
    again = asked(tmp_path, "huggingface_hub")
    other = asked(tmp_path, "huggingface_hub", HF_HOME="/elsewhere")
    assert [x.libraries[0].remembered for x in (first, again, other)] == [False, True, False]
    assert again.uses == first.uses
    assert other.uses[0].path == "/elsewhere/hub"


def test_an_answer_holds_in_every_directory_unless_a_value_is_relative(tmp_path: Path) -> None:
    for folder in ("a", "b"):
        (tmp_path / folder).mkdir()

    def ask(folder: str, **environ: str) -> Library:
        seen = {"PATH": os.environ["PATH"], "HOME": str(tmp_path), **environ}
        found = probe(
            Path(sys.executable),
            environ=seen,
            home=tmp_path,
            cwd=tmp_path / folder,
            only=("huggingface_hub",),
        )
        return found.libraries[0]

    assert [ask(folder).remembered for folder in "ab"] == [False, True]
    moved = [ask(folder, HF_HOME="here") for folder in "aba"]
    assert [library.remembered for library in moved] == [False, False, True]
    assert [library.uses[0].path for library in moved[:2]] == [
        f"{tmp_path}/{folder}/here/hub" for folder in "ab"
    ]


@pytest.mark.parametrize(
    ("imported", "is_asked"),
    [((), True), (("diffusers",), True), (("kit",), True), (("json", "other"), False)],
)
def test_a_library_that_a_program_cannot_load_does_not_keep_it_waiting(
    tmp_path: Path, imported: tuple[str, ...], is_asked: bool
) -> None:
    needs = {"diffusers": (), "kit": ("Diffusers (>=0.3) ; python_version > '3'",), "other": ()}
    needs["other"] = ("diffusers ; extra == 'images'",)
    for name, wanted in needs.items():
        (tmp_path / "site" / name).mkdir(parents=True)
        (tmp_path / "site" / name / "__init__.py").write_text("")
        info = tmp_path / "site" / f"{name}-1.0.dist-info"
        info.mkdir()
        lines = ["Metadata-Version: 2.1", f"Name: {name}", "Version: 1.0"]
        lines += [f"Requires-Dist: {need}" for need in wanted]
        (info / "METADATA").write_text("\n".join(lines) + "\n")
        (info / "top_level.txt").write_text(f"{name}\n")
    python = tmp_path / "python"
    python.write_text(f'#!/bin/sh\nPYTHONPATH="{tmp_path}/site" exec "{sys.executable}" -S "$@"\n')
    python.chmod(0o755)
    seen = {"PATH": os.environ["PATH"], "HOME": str(tmp_path)}
    found = probe(python, environ=seen, home=tmp_path, cwd=tmp_path, imported=imported)
    assert ("diffusers" in [library.name for library in found.libraries]) is is_asked


def test_secrets_do_not_reach_the_disk(tmp_path: Path) -> None:
    asked(tmp_path, "huggingface_hub", HF_TOKEN="hf_hush", WANDB_API_KEY="hf_hush")
    text = "".join(p.read_text() for p in tmp_path.rglob("*.json"))
    assert text
    assert "hf_hush" not in text


def broken_python(folder: Path, body: str) -> Path:
    """A Python whose huggingface_hub is `body`."""
    package = folder / "site" / "huggingface_hub"
    package.mkdir(parents=True)
    (package / "__init__.py").write_text(body)
    info = folder / "site" / "huggingface_hub-2.4.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: huggingface_hub\nVersion: 2.4.0\n")
    script = folder / "python"
    script.write_text(f'#!/bin/sh\nPYTHONPATH="{folder}/site" exec "{sys.executable}" "$@"\n')
    script.chmod(0o755)
    return script


@pytest.mark.parametrize(
    ("body", "words"),
    [
        ("raise ImportError('no tokenizers here')", "ImportError: no tokenizers here"),
        ("import os; os.kill(os.getpid(), 11)", "signal 11"),
        ("import sys; sys.exit(3)", "SystemExit: 3"),
        ("import os; os._exit(4)", "exit code 4"),
        ("print('noise'); import this_is_not_there", "ModuleNotFoundError"),
    ],
)
def test_a_library_that_cannot_be_imported_is_a_fact_not_a_crash(
    tmp_path: Path, body: str, words: str
) -> None:
    [library] = asked(tmp_path, "huggingface_hub", python=broken_python(tmp_path, body)).libraries
    assert words in library.problem


@pytest.mark.parametrize("data", [None, b"Metadata-Version: 2.1\n", b"Version: \xff\n"])
def test_a_package_with_damaged_metadata_is_told_and_not_called_missing(
    tmp_path: Path, data: bytes | None
) -> None:
    python = broken_python(tmp_path, "")
    metadata = next(tmp_path.glob("site/*.dist-info/METADATA"))
    metadata.unlink()
    if data is not None:
        metadata.write_bytes(data)
    found = asked(tmp_path, "huggingface_hub", python=python)
    [library] = found.libraries
    assert "its metadata is damaged" in library.problem
    machine = facts(interpreter=found, program=program(Import(library="huggingface_hub", line=1)))
    assert {f.code for f in examine(machine)} == {"library_broken"}


def test_a_library_that_hangs_is_given_up(tmp_path: Path) -> None:
    python = broken_python(tmp_path, "import time; time.sleep(60)")
    environ = {"PATH": os.environ["PATH"], "HOME": str(tmp_path)}
    start = time.monotonic()
    [library] = probe(
        python,
        environ=environ,
        home=tmp_path,
        cwd=tmp_path,
        only=("huggingface_hub",),
        timeout=1.0,
    ).libraries
    assert library.problem == "did not answer in 1 s"
    assert time.monotonic() - start < 30


def test_a_full_disk_does_not_stop_the_question(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    found = asked(tmp_path, "huggingface_hub", GRADIENCE_CACHE_DIR=str(tmp_path / "file" / "x"))
    assert found.uses


@pytest.mark.parametrize("name", ["/nowhere/python", "/bin/true"])
def test_what_is_no_python_is_refused_by_name(tmp_path: Path, name: str) -> None:
    with pytest.raises(UsageError, match=name):
        asked(tmp_path, python=Path(name))


def test_a_library_that_we_cannot_ask_is_refused_by_name(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="numpy is no library"):
        asked(tmp_path, "numpy")


def test_a_folder_named_like_a_library_does_not_shadow_it(tmp_path: Path) -> None:
    (tmp_path / "huggingface_hub").mkdir()
    (tmp_path / "huggingface_hub" / "__init__.py").write_text("raise ImportError")
    assert asked(tmp_path, "huggingface_hub").libraries[0].problem == ""


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("export A=/x", [("A", "/x", True)]),
        ("  export A='/x y'  # why", [("A", "/x y", True)]),
        ("A=/x\nexport A", [("A", "/x", True)]),
        ("A=/x", [("A", "/x", False)]),
        ("A=/x command", []),
        ("export A=1 B=2", [("A", "1", True), ("B", "2", True)]),
        ("declare -x A=1", [("A", "1", True)]),
        ("# export A=/x", []),
        ("echo 'unclosed", []),
        ("", []),
    ],
)
def test_profiles_are_read_as_a_shell_would(
    text: str, expected: list[tuple[str, str, bool]]
) -> None:
    assert [(s.name, s.value, s.exported) for s in parse(text, "p.sh")] == expected


def test_a_file_that_the_profile_sources_counts(tmp_path: Path) -> None:
    (tmp_path / "env.sh").write_text("export HF_HOME=/data\n")
    (tmp_path / ".bashrc").write_text('[ -r "$HOME/env.sh" ] && . "$HOME/env.sh"\n')
    found = [s for s in read_profiles(tmp_path, {}) if s.name == "HF_HOME"]
    assert [(s.value, Path(s.file).name) for s in found] == [("/data", "env.sh")]


def test_locks_of_a_local_disk_hold_and_the_test_leaves_nothing(tmp_path: Path) -> None:
    result = lock_test(tmp_path)
    assert result is not None
    assert result.excluded
    assert list(tmp_path.iterdir()) == []


def test_a_lock_in_use_is_not_idle(tmp_path: Path) -> None:
    folder = tmp_path / ".locks" / "models--o--m"
    folder.mkdir(parents=True)
    for name in ("a.lock", "b.lock"):
        (folder / name).write_text("")
        os.utime(folder / name, (1, 1))
    assert idle_lock_files(tmp_path, older_than=100.0) == 2
    code = (
        "import fcntl, sys; f = open(sys.argv[1], 'rb'); fcntl.flock(f, fcntl.LOCK_EX);"
        "print('held', flush=True); sys.stdin.read()"
    )
    with subprocess.Popen(
        [sys.executable, "-c", code, str(folder / "a.lock")],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    ) as holder:
        assert holder.stdout is not None
        holder.stdout.readline()
        assert idle_lock_files(tmp_path, older_than=100.0) == 1
        holder.communicate()


@pytest.mark.root
def test_a_directory_that_may_not_be_entered_has_no_hub_clients(tmp_path: Path) -> None:
    if os.geteuid() != 0:
        pytest.skip("acts as another user, which needs root")
    closed = tmp_path / "closed"
    closed.mkdir(mode=0o700)
    code = f"""
from pathlib import Path
from gradience.storage.doctor.places import hub_clients
###
print([c.site for c in hub_clients(Path("{closed}"), Path("{closed}"), {{}}) if "closed" in c.site])
"""
    assert as_nobody(code, closed) == "[]\n"


def test_hub_clients_of_other_environments_are_found(tmp_path: Path) -> None:
    for name, version in ((".venv", "2.4.0"), ("old/venv", "0.36.2")):
        site = tmp_path / name / "lib" / "python3.11" / "site-packages"
        (site / f"huggingface_hub-{version}.dist-info").mkdir(parents=True)
    found = {c.version for c in hub_clients(tmp_path, tmp_path, {}) if str(tmp_path) in c.site}
    assert found == {"2.4.0", "0.36.2"}


def test_a_place_that_is_not_there_has_its_parent_looked_at(tmp_path: Path) -> None:
    found = place(tmp_path / "a" / "b")
    assert found is not None
    assert (found.kind, found.existing, found.exists) == ("missing", tmp_path, False)


def test_a_broken_link_is_told_from_a_missing_directory(tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to(tmp_path / "gone")
    found = place(tmp_path / "link")
    assert found is not None
    assert (found.kind, found.writable) == ("broken link", False)


@pytest.mark.parametrize("name", ["a.pt", "a.safetensors", "a.bin"])
@pytest.mark.parametrize("data", [b"", b"x", b"PK\x03\x04" + bytes(100), bytes(200)])
def test_what_is_no_tensor_file_is_called_cut_off(tmp_path: Path, name: str, data: bytes) -> None:
    (tmp_path / name).write_bytes(data)
    assert cut_off(tmp_path / name)


def test_what_stands_in_the_way_of_a_directory_is_no_place_to_write(tmp_path):
    (tmp_path / "file").touch()
    (tmp_path / "gone").symlink_to("nowhere")
    (tmp_path / "loop").symlink_to("loop")
    below_file = place(tmp_path / "file" / "hub")
    assert (below_file.existing, below_file.is_dir) == (tmp_path / "file", False)
    for name in ("gone", "loop"):
        found = place(tmp_path / name / "hub")
        assert (found.kind, found.link) == ("broken link", tmp_path / name)
        assert not found.writable
    assert not below_file.writable


FORMER_PLACES: dict[str, tuple[dict[str, str], str]] = {
    "the usual place of datasets": ({}, ".cache/huggingface/datasets"),
    "the usual place of torch": ({}, ".cache/torch"),
    "a profile has HF_HOME": ({"HF_HOME": "~/hf"}, "hf/datasets"),
    "a variable that nobody expanded": ({"HF_DATASETS_CACHE": "$S/d"}, "$S/d"),
    "the layout of a machine of one's own": ({}, ".cache/gradience/hub"),
    "the same, for torch": ({}, ".cache/gradience/torch"),
    "the layout of a cluster": ({"SCRATCH": "{home}/s"}, "s/hf_cache/hub"),
}


@pytest.mark.parametrize("why", list(FORMER_PLACES))
def test_places_that_nothing_leads_to_any_more_are_known(tmp_path: Path, why: str) -> None:
    once, relative = FORMER_PLACES[why]
    pairs = {name: value.format(home=tmp_path) for name, value in once.items()}
    (tmp_path / relative).mkdir(parents=True)
    new = dict.fromkeys(("HF_HUB_CACHE", "HF_DATASETS_CACHE", "TORCH_HOME"), "/new")
    nobody = Interpreter(executable="python", version="3")
    [place] = former(nobody, pairs.items(), pairs | new, tmp_path, Host(cwd=tmp_path))
    assert place.path == tmp_path / relative


def test_a_directory_in_use_under_another_name_is_not_left_behind(tmp_path: Path) -> None:
    (tmp_path / ".cache/torch").mkdir(parents=True)
    (tmp_path / "t").symlink_to(".cache/torch")
    nobody = Interpreter(executable="python", version="3")
    new = {"TORCH_HOME": str(tmp_path / "t")}
    assert former(nobody, (), new, tmp_path, Host(cwd=tmp_path)) == []
