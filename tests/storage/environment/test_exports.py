"""Every format is read back by the program it is for, whatever the path is called."""

import importlib.util
import json
import os
import re
import shutil
import subprocess
import tempfile
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gradience.errors import UsageError
from gradience.storage.environment.exports import EXPORTS
from gradience.storage.environment.layout import Layout, check_path, layout
from gradience.storage.environment.platforms import PLATFORMS
from gradience.storage.environment.transfer import Client, transfer

HOSTILE = (
    "/plain/path",
    "/a b/  two  spaces ",
    '/it\'s "quoted" `date` $(date) ${HOME} $HOME \\n \\',
    "/-rf",
    "/~/x",
    "/*?[a-z]{a,b}",
    "/!history!!",
    "/#comment ; & | < > ( )",
    "/ünïcødé/模型/🦙",
    "/%n%h%%",
    "/''\"\"'",
    "/\u2018curly\u2019 \u201equotes\u201c",
    "/a:b=c,d@e",
    "/\ufeffbom\u00a0nbsp\u200bzero",
    "/trailing\\",
    "/$$$",
    "/$(NAME) $$(NAME)",
)

# Anything that a path may hold and that is not refused: no control characters, no surrogates.
NAMES = st.text(
    st.one_of(
        st.sampled_from(list(" '\"`$\\!#%&()*;<>?[]{}|~-=^@:,.")),
        st.characters(exclude_categories=("Cc", "Cs", "Zl", "Zp"), exclude_characters="/"),
    ),
    min_size=1,
    max_size=20,
)


def make_layout(root: str, *, choice: str = "plain") -> Layout:
    check_path(root)
    return layout(
        PLATFORMS["docker"],
        Path(root),
        local=Path(root) / "local",
        token=Path("/h/token"),
        transfer=transfer(choice, Client(hub="2.4.0", xet=True)),  # type: ignore[arg-type]
        comments=("A sentence; with 'quotes' and $(date).", "line\nend `id` \x1b[0m"),
    )


SHELLS = {
    "bash": ("bash", ["bash", "--norc", "--noprofile", "-c", 'eval "$1"; env -0', "bash"]),
    "bash, strict": (
        "bash",
        ["bash", "--norc", "-c", 'set -euo pipefail; eval "$1"; env -0', "bash"],
    ),
    "dash": ("bash", ["dash", "-c", 'eval "$1"; env -0', "dash"]),
    "zsh": ("zsh", ["zsh", "-f", "-c", 'eval "$1"; env -0', "zsh"]),
    "zsh, odd options": (
        "zsh",
        [
            "zsh",
            "-f",
            "-c",
            'setopt rc_quotes extended_glob bang_hist no_unset; eval "$1"; env -0',
            "zsh",
        ],
    ),
    "fish": ("fish", ["fish", "--no-config", "-c", "eval $argv[1]; env -0"]),
}


def read_back(shell: str, made: Layout) -> dict[str, str]:
    """The environment of a process that the shell starts after reading the text."""
    name, command = SHELLS[shell]
    if shutil.which(command[0]) is None:
        pytest.skip(f"{command[0]} is not installed")
    with tempfile.TemporaryDirectory() as home:  # fish writes into its home
        done = subprocess.run(
            [*command, EXPORTS[name].render(made)],
            capture_output=True,
            check=False,
            env={"PATH": os.environ["PATH"], "LC_ALL": "C.UTF-8", "HOME": home},
        )
    assert done.returncode == 0, done.stderr
    assert done.stderr == b""
    pairs = (item.partition("=") for item in done.stdout.decode().split("\0"))
    return {name: value for name, _, value in pairs if name in made.values}


@pytest.mark.parametrize("root", HOSTILE)
@pytest.mark.parametrize("shell", list(SHELLS))
def test_a_shell_reads_hostile_paths_back(shell: str, root: str) -> None:
    made = make_layout(root)
    assert read_back(shell, made) == made.values


@pytest.mark.parametrize("shell", ["bash", "dash", "zsh", "fish"])
def test_a_shell_reads_any_legal_path_back(shell: str) -> None:
    @settings(max_examples=20, deadline=None, derandomize=True)
    @given(NAMES)
    def holds(name: str) -> None:
        made = make_layout(f"/{name}")
        assert read_back(shell, made) == made.values

    holds()


@pytest.mark.parametrize("shell", ["bash", "zsh"])
def test_the_shell_that_reads_the_lines_goes_on_as_before(shell: str) -> None:
    if shutil.which(shell) is None:
        pytest.skip(f"{shell} is not installed")
    text = EXPORTS[shell].render(make_layout("/app/cache"))
    script = 'before="$-"; eval "$1"; [ "$before" = "$-" ] && false; echo "still here"'
    done = subprocess.run([shell, "-f", "-c", script, shell, text], capture_output=True, check=True)
    assert done.stdout == b"still here\n"
    assert not re.search(r"set -[a-z]*[eu]", text)


@pytest.mark.parametrize("root", HOSTILE)
def test_compose_and_kubernetes_hold_the_values(root: str) -> None:
    yaml = pytest.importorskip("yaml")
    made = make_layout(root)
    compose = yaml.safe_load(EXPORTS["compose"].render(made))
    service = compose["services"]["train"]
    read = {n: v.replace("$$", "$") for n, v in service["environment"].items()}
    assert read == made.values
    assert service["volumes"][0]["target"].replace("$$", "$") == str(made.root)
    assert service["volumes"][0]["source"] in compose["volumes"]
    pod = yaml.safe_load(EXPORTS["k8s"].render(made))["spec"]
    (container,) = pod["containers"]
    read = {e["name"]: e["value"].replace("$$", "$") for e in container["env"]}
    assert read == made.values
    assert container["volumeMounts"][0]["mountPath"] == str(made.root)
    assert container["volumeMounts"][0]["name"] == pod["volumes"][0]["name"]
    # every dollar is one of a pair, so nothing is interpolated
    for entry in container["env"]:
        assert "$" not in entry["value"].replace("$$", "")


# Each takes a second: those whose characters mean something in YAML or to Compose.
@pytest.mark.parametrize(
    "root", ["/app/cache", *(r for r in HOSTILE if "$(NAME)" in r or "`" in r or ":" in r)]
)
def test_docker_compose_merges_it_into_a_service(root: str, tmp_path: Path) -> None:
    yaml = pytest.importorskip("yaml")
    made = make_layout(root)
    base, ours = tmp_path / "compose.yaml", tmp_path / "compose.cache.yaml"
    base.write_text("services:\n  train:\n    image: busybox\n")
    ours.write_text(EXPORTS["compose"].render(made), encoding="utf-8")
    command = [*compose_command(), "-f", str(base), "-f", str(ours), "config"]
    done = subprocess.run(
        command,
        capture_output=True,
        text=True,
        check=False,
        env={"PATH": os.environ["PATH"], "HOME": str(tmp_path), "LC_ALL": "C.UTF-8"},
    )
    assert done.returncode == 0, done.stderr
    service = yaml.safe_load(done.stdout)["services"]["train"]
    assert service["image"] == "busybox"
    read = {n: v.replace("$$", "$") for n, v in service["environment"].items()}
    assert read == made.values
    assert service["volumes"][0]["target"].replace("$$", "$") == str(made.root)


def compose_command() -> list[str]:
    """`docker compose`, or its first version by its own name."""
    if shutil.which("docker") is not None:
        plugin = ["docker", "compose"]
        if not subprocess.run([*plugin, "version"], capture_output=True, check=False).returncode:
            return plugin
    if shutil.which("docker-compose") is None:
        pytest.skip("neither docker compose nor docker-compose is installed")
    return ["docker-compose"]


@pytest.mark.parametrize("root", HOSTILE)
def test_a_pod_with_it_is_valid_by_the_schema_of_kubernetes(root: str) -> None:
    yaml = pytest.importorskip("yaml")
    schema = pytest.importorskip("kubernetes_validate", reason="pip install kubernetes-validate")
    pod = yaml.safe_load(EXPORTS["k8s"].render(make_layout(root)))
    pod |= {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "train"}}
    pod["spec"]["containers"][0]["image"] = "busybox"
    schema.validate(pod, schema.latest_version(), strict=True)


@pytest.mark.parametrize("root", HOSTILE)
def test_systemd_accepts_every_value(root: str, tmp_path: Path) -> None:
    tool = shutil.which("systemd-analyze")
    if tool is None:
        pytest.skip("systemd-analyze is not installed")
    made = make_layout(root)
    text = EXPORTS["systemd"].render(made)
    unit = tmp_path / "train.service"
    unit.write_text(text.replace("[Service]", "[Service]\nExecStart=/bin/true"))
    done = subprocess.run(
        [tool, "verify", "--man=no", str(unit)], capture_output=True, text=True, check=False
    )
    complaints = [line for line in done.stderr.splitlines() if "train.service" in line]
    assert complaints == []
    assert systemd_values(text) == made.values


def test_a_unit_makes_its_directories_before_it_starts() -> None:
    # mktemp and compilers fail where TMPDIR is not there
    text = EXPORTS["systemd"].render(make_layout("/srv/a b"))
    (line,) = [x for x in text.splitlines() if x.startswith("ExecStartPre=")]
    assert "${TMPDIR}" in line
    assert "${HF_TOKEN_PATH}" not in line


def systemd_values(text: str) -> dict[str, str]:
    """Environment= as systemd.exec(5) and systemd.syntax(7) say: quotes, escapes, specifiers."""
    read = {}
    for line in re.findall(r'^Environment="(.*)"$', text, flags=re.MULTILINE):
        plain = re.sub(r"\\(.)", r"\1", line).replace("%%", "%")
        name, _, value = plain.partition("=")
        read[name] = value
    return read


@pytest.mark.parametrize("root", HOSTILE)
def test_powershell_reads_quotes_of_every_kind(root: str, tmp_path: Path) -> None:
    made = make_layout(root)
    text = EXPORTS["powershell"].render(made)
    tool = shutil.which("pwsh")
    if tool is not None:
        script = tmp_path / "env.ps1"
        script.write_text(text + "Get-ChildItem env: | ConvertTo-Json", encoding="utf-8-sig")
        done = subprocess.run([tool, "-File", str(script)], capture_output=True, check=True)
        said = {e["Key"]: e["Value"] for e in json.loads(done.stdout)}
        assert {n: said[n] for n in made.values} == made.values
        return
    quote = "['\u2018\u2019\u201a\u201b]"
    read = {}
    for name, value in re.findall(r"^\$env:(\w+) = '(.*)'$", text, flags=re.MULTILINE):
        assert re.sub(quote * 2, "", value).count("'") == 0
        read[name] = re.sub(f"({quote}){quote}", r"\1", value)
    assert read == made.values


def test_a_dockerfile_makes_its_directories_under_dash(tmp_path: Path) -> None:
    if shutil.which("dash") is None:
        pytest.skip("dash is not installed")
    made = make_layout(str(tmp_path / "app cache"))
    text = EXPORTS["dockerfile"].render(made)
    run = re.search(r"^RUN ((?:.*\\\n)*.*)$", text, flags=re.MULTILINE)
    assert run is not None
    subprocess.run(["dash", "-c", run[1]], check=True)
    assert all(Path(directory).is_dir() for directory in made.directories)
    assert not [p for p in tmp_path.rglob("*") if "{" in p.name]


def test_a_dockerfile_keeps_the_promised_volume() -> None:
    text = EXPORTS["dockerfile"].render(make_layout("/app/cache"))
    assert 'VOLUME ["/app/cache"]' in text.splitlines()
    # below a declared volume, a later RUN writes what is thrown away
    assert text.index("RUN ") < text.index("VOLUME ")
    assert "{" not in text


@pytest.mark.parametrize("local", ["/x $y", '/x "y"', "/x\\y", "/x\\", "/x ü🦙"])
def test_a_dockerfile_escapes_its_values(local: str) -> None:
    made = layout(
        PLATFORMS["docker"],
        Path("/app/cache"),
        local=Path(local),
        token=Path("/h/token"),
        transfer=transfer("plain", Client(hub="2.4.0")),
    )
    text = EXPORTS["dockerfile"].render(made)
    env = text[text.index("ENV ") + 4 :].replace(" \\\n", " ")
    # the rule of ENV: a double-quoted word, in which a backslash takes the meaning of the next
    pairs = re.findall(r'(\w+)="((?:[^"\\]|\\.)*)"', env)
    assert {n: re.sub(r"\\(.)", r"\1", v) for n, v in pairs} == made.values


@pytest.mark.parametrize("root", ["/a$b", "/a'b", '/a"b', "/a\\b"])
def test_a_volume_that_docker_would_read_otherwise_is_refused(root: str) -> None:
    with pytest.raises(UsageError, match="VOLUME"):
        EXPORTS["dockerfile"].render(make_layout(root))


@pytest.mark.parametrize("root", HOSTILE)
def test_a_dotenv_value_is_read_back_or_refused(root: str, tmp_path: Path) -> None:
    made = make_layout(root)
    if any(c in root for c in "'\\$"):
        with pytest.raises(UsageError, match="disagree"):
            EXPORTS["dotenv"].render(made)
        return
    text = EXPORTS["dotenv"].render(made)
    if importlib.util.find_spec("dotenv") is not None:
        import dotenv  # noqa: PLC0415

        path = tmp_path / ".env"
        path.write_text(text, encoding="utf-8")
        assert dict(dotenv.dotenv_values(path)) == made.values
    else:
        pairs = (line.partition("=") for line in text.splitlines() if not line.startswith("#"))
        assert {n: v.strip("'") if v[:1] == "'" else v for n, _, v in pairs} == made.values


def test_a_plain_dotenv_needs_no_quotes() -> None:
    # docker run --env-file takes quotes for a part of the value
    text = EXPORTS["dotenv"].render(make_layout("/app/cache"))
    assert "'" not in "".join(x for x in text.splitlines() if not x.startswith("#"))
    assert "\nHF_HOME=/app/cache/hf_home\n" in text


def test_a_slurm_script_uses_the_nodes_disk_and_makes_directories(tmp_path: Path) -> None:
    made = make_layout(str(tmp_path / "scratch me"))
    text = EXPORTS["slurm"].render(made) + "env -0\n"
    node = tmp_path / "node"
    node.mkdir()
    for extra, inductor in (
        ({}, made.values["TORCHINDUCTOR_CACHE_DIR"]),
        ({"SLURM_TMPDIR": str(node)}, str(node / "inductor")),
    ):
        done = subprocess.run(
            ["bash", "-euo", "pipefail", "-c", text],
            capture_output=True,
            check=True,
            env={"PATH": os.environ["PATH"], **extra},
        )
        read = dict(i.partition("=")[::2] for i in done.stdout.decode().split("\0"))
        assert read["TORCHINDUCTOR_CACHE_DIR"] == inductor
        assert Path(inductor).is_dir()
        assert Path(read["TMPDIR"]).is_dir()
        assert read["HF_HOME"] == made.values["HF_HOME"]


@pytest.mark.parametrize("name", list(EXPORTS))
def test_a_format_says_what_it_is_and_ends_its_last_line(name: str) -> None:
    export = EXPORTS[name]
    assert export.name == name
    assert export.title
    assert export.usage
    assert export.platform in {"", *PLATFORMS}
    text = export.render(make_layout("/app/cache", choice="auto"))
    assert text.endswith("\n")
    assert "\x1b" not in text
    assert "# Downloads: huggingface_hub 2.4.0: Xet stays on" in text
