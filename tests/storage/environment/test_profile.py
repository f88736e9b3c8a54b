"""New shells have the environment, and every other byte of a profile stays as it was."""

import os
import shutil
import stat
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from gradience.errors import StorageError, UsageError
from gradience.storage.doctor.profiles import read_profiles
from gradience.storage.environment.layout import Layout, layout
from gradience.storage.environment.platforms import PLATFORMS
from gradience.storage.environment.profile import (
    former_file,
    install,
    shell_of,
    static_file,
    uninstall,
)
from gradience.storage.environment.transfer import Client, transfer


def make_layout(root: Path, comment: str = "It's here.") -> Layout:
    return layout(
        PLATFORMS["local"],
        root,
        local=root,
        token=root / "token",
        transfer=transfer("auto", Client(hub="2.4.0", xet=True)),
        comments=(comment,),
    )


@pytest.fixture
def short() -> Iterator[Path]:
    """A directory whose name leaves room for sockets, so that TMPDIR may lie below it."""
    with tempfile.TemporaryDirectory(dir="/tmp") as name:
        yield Path(name)


@pytest.fixture
def home(tmp_path: Path) -> Path:
    path = tmp_path / "it's home"
    path.mkdir()
    return path


STARTS = {
    "bash, with a prompt": ("bash", ["bash", "-i", "-c"]),
    "bash, at login": ("bash", ["bash", "-l", "-c"]),
    "sh, at login": ("bash", ["dash", "-l", "-c"]),
    "zsh, in a script": ("zsh", ["zsh", "-c"]),
    "zsh, with a prompt, at login": ("zsh", ["zsh", "-l", "-i", "-c"]),
    "fish, with a prompt": ("fish", ["fish", "-i", "-c"]),
    "fish, at login": ("fish", ["fish", "-l", "-c"]),
    "fish, in a script": ("fish", ["fish", "-c"]),
}


def started(start: str, home: Path, command: str = "env -0") -> dict[str, str]:
    _, words = STARTS[start]
    if shutil.which(words[0]) is None:
        pytest.skip(f"{words[0]} is not installed")
    done = subprocess.run(
        [*words, command],
        capture_output=True,
        check=True,
        stdin=subprocess.DEVNULL,
        env={"PATH": os.environ["PATH"], "HOME": str(home), "TERM": "dumb", "LC_ALL": "C.UTF-8"},
    )
    pairs = (item.partition("=") for item in done.stdout.decode().split("\0"))
    return {name: value for name, _, value in pairs}


@pytest.mark.parametrize("start", list(STARTS))
def test_a_new_shell_has_every_value_until_it_is_uninstalled(start: str, home: Path) -> None:
    shell, _ = STARTS[start]
    made = make_layout(home / "big disk")
    install(made, shell, {}, home)
    said = started(start, home)
    assert {name: said.get(name) for name in made.values} == made.values
    uninstall({}, home)
    assert not made.values.keys() & started(start, home).keys()


def test_a_bashrc_that_ends_early_without_a_prompt_is_no_obstacle(home: Path) -> None:
    # the first lines of the .bashrc of Debian and Ubuntu images, which `ssh host command` reads
    early = "case $- in\n    *i*) ;;\n      *) return;;\nesac\n"
    (home / ".bashrc").write_text(early)
    made = make_layout(home / "disk")
    install(made, "bash", {}, home)
    done = subprocess.run(
        ["bash", "-c", '. "$1"; env -0', "bash", str(home / ".bashrc")],
        capture_output=True,
        check=True,
        env={"PATH": os.environ["PATH"]},
    )
    assert f"HF_HOME={made.values['HF_HOME']}\0" in done.stdout.decode()


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_installing_twice_changes_nothing_and_a_new_layout_only_the_static_file(
    shell: str, home: Path
) -> None:
    install(make_layout(home / "a"), shell, {}, home)
    files = {p: p.read_bytes() for p in home.rglob("*") if p.is_file()}
    again = install(make_layout(home / "a"), shell, {}, home)
    assert again.written == ()
    assert {p: p.read_bytes() for p in home.rglob("*") if p.is_file()} == files
    moved = install(make_layout(home / "b"), shell, {}, home)
    assert moved.written == (static_file(shell, {}, home),)


def test_free_space_in_a_comment_is_no_reason_to_write_again(home: Path) -> None:
    install(make_layout(home, "local, 73.7 GB free"), "bash", {}, home)
    again = install(make_layout(home, "local, 73.6 GB free"), "bash", {}, home)
    assert again.written == ()


CONTENTS = [
    b"",
    b"\n",
    b"export A=1",
    b"export A=1\r\nexport B=2\r\n",
    b"#!/bin/bash\nexport A=1\n",
    b"#!/bin/bash",
    b"\xff\xfe not utf-8 \x00\n",
    b"# gradience env\nif [ -r x ]; then . x; fi\n",
]


@given(content=st.one_of(st.sampled_from(CONTENTS), st.binary(max_size=60)))
@settings(
    max_examples=60,
    deadline=None,
    derandomize=True,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
@pytest.mark.parametrize("shell", ["bash", "zsh"])
def test_uninstalling_gives_every_byte_back(shell: str, content: bytes, tmp_path: Path) -> None:
    home = tmp_path
    name = {"bash": ".bashrc", "zsh": ".zshenv"}[shell]
    (home / name).write_bytes(content)
    install(make_layout(home / "a"), shell, {}, home)
    changed = (home / name).read_bytes()
    assert len(changed.splitlines()) >= 1
    assert b"env.sh" in changed
    install(make_layout(home / "b"), shell, {}, home)
    assert (home / name).read_bytes() == changed
    uninstall({}, home)
    assert (home / name).read_bytes() == content
    assert [p.name for p in home.iterdir() if p.is_file()] == [name]


def test_files_that_were_not_there_are_gone_again(home: Path) -> None:
    for shell in ("bash", "zsh", "fish"):
        install(make_layout(home / "a"), shell, {}, home)
    assert {".bashrc", ".profile", ".zshenv"} <= {p.name for p in home.iterdir()}
    uninstall({}, home)
    assert [p for p in home.rglob("*") if p.is_file()] == []


@pytest.mark.parametrize("shell", ["bash", "fish"])
def test_caches_with_content_are_remembered_by_name_until_they_are_gone(
    shell: str, tmp_path: Path
) -> None:
    for root in ("a", "b b"):
        (tmp_path / root / "hub/models--o--m").mkdir(parents=True)
        install(make_layout(tmp_path / root), shell, {}, tmp_path)
    uninstall({}, tmp_path)
    file = former_file({}, tmp_path)
    hubs = [f"export HF_HUB_CACHE='{tmp_path}/{root}/hub'\n" for root in ("a", "b b")]
    assert file.read_text() == "".join(hubs)
    (tmp_path / "a/hub/models--o--m").rmdir()
    (tmp_path / "b b/hub/models--o--m").rmdir()
    install(make_layout(tmp_path / "c"), shell, {}, tmp_path)
    uninstall({}, tmp_path)
    assert not file.parent.exists()


@pytest.mark.parametrize("shell", ["bash", "fish"])
def test_the_doctor_reads_what_is_installed(shell: str, tmp_path: Path) -> None:
    home = tmp_path / "my home"
    home.mkdir()
    made = make_layout(home / "disk")
    install(made, shell, {}, home)
    said = {s.name: s.value for s in read_profiles(home, {})}
    assert {name: said.get(name) for name in made.values} == made.values


def test_links_and_permissions_stay(home: Path) -> None:
    dotfiles = home / "dotfiles"
    dotfiles.mkdir()
    (dotfiles / "bashrc").write_bytes(b"alias x=y\n")
    (dotfiles / "bashrc").chmod(0o600)
    (home / ".bashrc").symlink_to("dotfiles/bashrc")
    install(make_layout(home / "a"), "bash", {}, home)
    assert (home / ".bashrc").is_symlink()
    assert stat.S_IMODE((dotfiles / "bashrc").stat().st_mode) == 0o600
    assert (dotfiles / "bashrc").read_bytes().endswith(b"alias x=y\n")
    uninstall({}, home)
    assert (home / ".bashrc").is_symlink()
    assert (dotfiles / "bashrc").read_bytes() == b"alias x=y\n"


def test_a_link_to_nothing_stays_a_link_to_nothing(home: Path) -> None:
    (home / ".zshenv").symlink_to("dotfiles/zshenv")
    install(make_layout(home / "a"), "zsh", {}, home)
    assert b"env.sh" in (home / "dotfiles" / "zshenv").read_bytes()
    uninstall({}, home)
    assert (home / ".zshenv").is_symlink()
    assert not (home / ".zshenv").exists()


def test_a_profile_that_is_no_file_is_refused_before_anything_is_written(home: Path) -> None:
    (home / ".zshenv").symlink_to(".zshenv")
    with pytest.raises(StorageError, match=r"\.zshenv cannot be read"):
        install(make_layout(home / "a"), "zsh", {}, home)
    (home / ".zshenv").unlink()
    (home / ".zshenv").mkdir()
    with pytest.raises(StorageError, match=r"\.zshenv cannot be read"):
        install(make_layout(home / "a"), "zsh", {}, home)
    assert [p.name for p in home.rglob("*")] == [".zshenv"]


def test_a_read_only_profile_is_refused_before_anything_is_written(home: Path) -> None:
    (home / ".bashrc").write_bytes(b"x\n")
    (home / ".bashrc").chmod(0o444)
    with pytest.raises(StorageError, match="read-only") as caught:
        install(make_layout(home / "a"), "bash", {}, home)
    assert "chmod" in caught.value.remedy
    assert [p.name for p in home.iterdir()] == [".bashrc"]


def test_the_login_file_that_bash_reads_gets_the_line_and_no_other(home: Path) -> None:
    (home / ".bash_login").write_bytes(b"")
    (home / ".profile").write_bytes(b"")
    install(make_layout(home / "a"), "bash", {}, home)
    assert b"env.sh" in (home / ".bash_login").read_bytes()
    assert (home / ".profile").read_bytes() == b""
    assert not (home / ".bash_profile").exists()


def test_zsh_is_found_where_zdotdir_says(home: Path) -> None:
    moved = home / "zsh"
    moved.mkdir()
    made = make_layout(home / "a")
    install(made, "zsh", {"ZDOTDIR": str(moved)}, home)
    for environ in ({}, {"ZDOTDIR": str(moved)}):
        if shutil.which("zsh") is None:
            pytest.skip("zsh is not installed")
        done = subprocess.run(
            ["zsh", "-c", "env -0"],
            capture_output=True,
            check=True,
            env={"PATH": os.environ["PATH"], "HOME": str(home), **environ},
        )
        assert f"HF_HOME={made.values['HF_HOME']}\0" in done.stdout.decode()
    uninstall({"ZDOTDIR": str(moved)}, home)
    assert list(moved.iterdir()) == []


def test_a_lost_static_file_breaks_no_shell(home: Path) -> None:
    install(make_layout(home / "a"), "bash", {}, home)
    static_file("bash", {}, home).unlink()
    assert started("bash, with a prompt", home, "echo HELLO=1; exit 0")["HELLO"] == "1\n"


def test_a_line_that_comes_later_and_wins_is_named(home: Path) -> None:
    (home / ".bashrc").write_text("alias x=y\nexport HF_HOME=/old\n")
    done = install(make_layout(home / "a"), "bash", {}, home)
    assert done.overrides == (f"{home}/.bashrc:3: export HF_HOME=/old",)


def test_a_missing_temporary_directory_is_made_when_the_shell_starts(
    home: Path, short: Path
) -> None:
    made = make_layout(short)
    for shell, start in (("bash", "bash, at login"), ("fish", "fish, at login")):
        install(made, shell, {}, home)
        started(start, home)
        Path(made.values["TMPDIR"]).rmdir()


def test_no_program_is_run_when_a_shell_starts(home: Path, short: Path) -> None:
    made = make_layout(short)
    Path(made.values["TMPDIR"]).mkdir()
    install(made, "bash", {}, home)
    static = static_file("bash", {}, home)
    done = subprocess.run(
        ["bash", "--norc", "-c", 'PATH=/nowhere; . "$1"; echo $?', "bash", str(static)],
        capture_output=True,
        text=True,
        check=True,
        env={},
    )
    assert (done.stdout, done.stderr) == ("0\n", "")


@pytest.mark.parametrize(("shell", "name"), [("/bin/zsh", "zsh"), ("/usr/local/bin/fish", "fish")])
def test_the_users_shell_is_known(shell: str, name: str) -> None:
    assert shell_of({"SHELL": shell}) == name


@pytest.mark.parametrize("environ", [{}, {"SHELL": "/bin/tcsh"}], ids=str)
def test_a_shell_that_we_do_not_write_for_is_said(environ: dict[str, str], home: Path) -> None:
    with pytest.raises(UsageError) as caught:
        shell_of(environ)
    assert "--format" in caught.value.remedy
    with pytest.raises(UsageError, match="tcsh"):
        install(make_layout(home), "tcsh", {}, home)
