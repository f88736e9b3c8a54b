"""Every finding appears on facts that call for it, and on none that do not."""

import dataclasses
import shlex
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
import pytest

from factories_doctor import (
    GB,
    HOME,
    cache,
    facts,
    found,
    interpreter,
    inventory,
    mount,
    place,
    program,
    repo,
    use,
    with_room,
)
from gradience.findings import Severity
from gradience.storage.doctor.facts import (
    FORMER,
    Assignment,
    Candidate,
    DeadRun,
    Facts,
    ForeignPart,
    HubClient,
    Import,
    Interpreter,
    Library,
    LockTest,
    PathLiteral,
    Setting,
    Token,
    Unfinished,
)
from gradience.storage.doctor.finding_kinds import DOCTOR, TROUBLE_OF
from gradience.storage.doctor.questions import (
    ARROW,
    COMPILED,
    EXTENSIONS,
    LOGIN,
    MODELS,
    TEMPORARY,
    TORCH_HUB,
)
from gradience.storage.doctor.rules import examine
from gradience.storage.doctor.summary import summarise
from gradience.storage.inventory.records import Damage, Unreadable
from gradience.storage.verify.records import Problem, Verification

HUB = "/home/me/.cache/huggingface/hub"
CUT_OFF = Unfinished(
    words="/n is of an unfinished merge of /o",
    command="gradience cache merge /o /n",
    places=("/o", "/n"),
)
REPO = f"{HUB}/models--o--m"
TOKEN = f"{HOME}/.cache/huggingface/token"
OLD = "/old/hub"
BIG = Candidate(path=Path("/data"), mount=mount("/data", free=3000 * GB, total=4000 * GB))
LATE = (
    Import(library="transformers", line=1),
    Assignment(name="HF_HOME", value="/d", line=2, how="os.environ"),
)


def literal(path: str, answer: str) -> Facts:
    return facts(use(path=path, answer=answer), environ={"HF_HOME": "~/hf"})


def damaged(code: str, size: int = 5, what: str = "model", **more: Any) -> Facts:
    damage = Damage(
        code=code, path=f"{HUB}/models--o--m/x", message="why", physical_bytes=size, **more
    )
    return facts(inventory=inventory(cache(HUB, repo("o/m", REPO, "a", damage=[damage]))))


def part(**more: Any) -> ForeignPart:
    values = {
        "path": Path(HUB) / "models--o--m",
        "cache": Path(HUB),
        "owner": "root",
        "group": "root",
        "mode": 0o755,
        "is_dir": True,
        "writable": False,
        **more,
    }
    return ForeignPart(**values)


def shared_cache(**more: Any) -> Facts:
    return facts(places={HUB: place(HUB, mode=0o2775, group="lab")}, **more)


def token(
    mode: int = 0o600, path: str = f"{HOME}/.cache/huggingface/token", in_use: bool = True
) -> Token:
    return Token(path=Path(path), mode=mode, owner="me", in_use=in_use)


def two_caches(layout: str = "repo blobs", **more: Any) -> Facts:
    return facts(
        inventory=inventory(
            cache(OLD, repo("o/m", f"{OLD}/models--o--m", "a", "b"), layout=layout),
            cache(HUB, repo("o/m", f"{HUB}/models--o--m", "a")),
        ),
        **more,
    )


def noexec(**more: Any) -> Facts:
    compiled = use("torch", COMPILED, "/scratch/inductor")
    return facts(compiled, on=mount("/scratch", **more))


ILL: dict[str, Callable[[], Facts]] = {
    "space_low": lambda: with_room(facts(), free_bytes=5 * GB),
    "quota_low": lambda: with_room(facts(), free_bytes=5 * GB, quota=True, limit="user quota"),
    "inodes_low": lambda: with_room(facts(), free_inodes=500),
    "cache_on_small_disk": lambda: facts(
        on=mount("/", free=15 * GB, total=20 * GB), candidates=(BIG,)
    ),
    "cache_in_memory": lambda: facts(on=mount("/dev/shm", in_memory=True, fs_type="tmpfs")),
    "temporary_in_memory": lambda: facts(
        use("python", TEMPORARY, "/tmp"), on=mount("/tmp", in_memory=True, fs_type="tmpfs")
    ),
    "temporary_missing": lambda: facts(
        use("python", TEMPORARY, "/tmp"),
        environ={"TMPDIR": "/gone"},
        places={"/gone": place("/gone", kind="missing")},
    ),
    "leftovers": lambda: damaged("incomplete", age_seconds=9000.0, held=False),
    "directory_unwritable": lambda: facts(
        places={HUB: place(HUB, writable=False, owner="root", mine=False)}
    ),
    "foreign_owner": lambda: facts(parts=(part(),)),
    "group_sharing_broken": lambda: shared_cache(
        parts=(part(writable=True, owner="me", group="lab", mode=0o700),), umask=0o002
    ),
    "umask_shuts_group_out": lambda: shared_cache(umask=0o022),
    "no_exec": lambda: noexec(no_exec=True),
    "token_readable": lambda: facts(tokens=(token(0o644),)),
    "token_on_shared_volume": lambda: facts(
        use(purpose=LOGIN, path="/nfs/hf/token"),
        on=mount("/nfs", network=True),
        tokens=(token(path="/nfs/hf/token"),),
    ),
    "login_lost": lambda: facts(
        use(purpose=LOGIN, path="/data/hf/token"), tokens=(token(in_use=False),)
    ),
    "variable_not_in_process": lambda: facts(
        settings=(Setting(name="HF_HOME", value="/data/hf", file="/home/me/.bashrc", line=3),)
    ),
    "variable_literal": lambda: literal("/jobs/~/hf/hub", "~/hf/hub"),
    "variable_empty": lambda: facts(use(path="/jobs/hub", answer="hub"), environ={"HF_HOME": ""}),
    "variable_relative": lambda: facts(
        use(path="/jobs/hf/hub", answer="hf/hub"), environ={"HF_HOME": "hf"}
    ),
    "variable_unread": lambda: facts(environ={"TRANSFORMERS_CACHE": "/x"}),
    "variable_overridden": lambda: facts(
        use(path="/b"), environ={"HUGGINGFACE_HUB_CACHE": "/a", "HF_HUB_CACHE": "/b"}
    ),
    "library_elsewhere": lambda: facts(use(path="/other"), environ={"HF_HUB_CACHE": "/data/hub"}),
    "variable_after_import": lambda: facts(program=program(*LATE)),
    "variable_by_putenv": lambda: facts(
        program=program(Assignment(name="HF_HOME", value="/d", line=1, how="os.putenv"))
    ),
    "xet_disabled": lambda: facts(environ={"HF_HUB_DISABLE_XET": "1"}),
    "same_repo_in_two_caches": two_caches,
    "cache_left_behind": lambda: facts(
        inventory=inventory(cache(OLD, repo("o/m", f"{OLD}/models--o--m", "a")))
    ),
    "cache_dir_in_program": lambda: facts(
        program=program(
            literals=(
                PathLiteral(keyword="cache_dir", value="./c", call="from_pretrained", line=4),
            )
        )
    ),
    "hub_generations": lambda: facts(
        inventory=inventory(cache(HUB, repo("o/m", f"{HUB}/m", "a"), layout="shared blobs v1")),
        clients=(HubClient(version="2.4.0", site="/a"), HubClient(version="0.36.2", site="/b")),
    ),
    "locks_without_effect": lambda: facts(
        locks=(LockTest(path=Path(HUB), excluded=False, detail="two processes held it"),)
    ),
    "broken_repo": lambda: damaged("broken_link"),
    "broken_weights": lambda: facts(verification=verification("zero_filled")),
    "dead_run": lambda: facts(
        dead_runs=(
            DeadRun(place=Path("/r"), held=(Path("/r/.gradience/ballast"),), bytes=2 * 10**9),
        )
    ),
    "unfinished_move": lambda: facts(unfinished=(CUT_OFF,)),
    "idle_locks": lambda: facts(idle_locks={HUB: 5000}),
    "broken_checkpoint": lambda: damaged("broken_checkpoint"),
    "cache_unreadable": lambda: facts(
        inventory=inventory(
            cache(
                HUB,
                unreadable=(Unreadable(path=f"{HUB}/x", reason="Permission denied"),),
                unreadable_count=1,
            )
        )
    ),
    "library_broken": lambda: facts(interpreter=broken_library()),
    "library_missing": lambda: facts(program=program(Import(library="datasets", line=1))),
    "program_not_read": lambda: facts(program=program(notes=("there is no /jobs/t.py",))),
}


def verification(code: str) -> Verification:
    problem = Problem(
        code=code, path=f"{REPO}/blobs/abc", owner="o/m", message="why", names=("model.bin",)
    )
    return Verification(
        roots=(HUB,), files=1, by_size=0, by_hash=0, bytes_read=0, partial={}, problems=(problem,)
    )


def broken_library() -> Interpreter:
    ill = Library(name="transformers", version="5.23.0", problem="ImportError: no tokenizers")
    healthy = interpreter(use())
    return type(healthy)(
        executable=healthy.executable,
        version=healthy.version,
        libraries=(*healthy.libraries, ill),
        distributions=healthy.distributions,
    )


NEARLY: dict[str, Callable[[], Facts]] = {
    "enough space": facts,
    "a file system without a fixed number of inodes": lambda: with_room(facts(), free_inodes=None),
    "unknown free space": lambda: with_room(facts(), free_bytes=None),
    "a big disk that has little more": lambda: facts(
        candidates=(Candidate(path=Path("/data"), mount=mount("/data", free=400 * GB)),)
    ),
    "a small disk and nothing larger": lambda: facts(
        on=mount("/", free=15 * GB, total=20 * GB), candidates=()
    ),
    "temporary files on a disk": lambda: facts(use("python", TEMPORARY, "/tmp")),
    "TMPDIR that is there": lambda: facts(
        use("python", TEMPORARY, "/t"), environ={"TMPDIR": "/t"}, places={"/t": place("/t")}
    ),
    "a download in flight": lambda: damaged("incomplete", held=True),
    "a part of a download written just now": lambda: damaged("incomplete", age_seconds=30.0),
    "own parts": lambda: facts(parts=(part(writable=True, owner="me", group="me"),)),
    "a private cache with private directories": lambda: facts(
        parts=(part(writable=True, owner="me", group="me", mode=0o700),)
    ),
    "a shared cache in order": lambda: shared_cache(
        umask=0o002, parts=(part(writable=True, owner="ann", group="lab", mode=0o2775),)
    ),
    "an executable mount": noexec,
    "a private token": lambda: facts(tokens=(token(),)),
    "a token given by HF_TOKEN": lambda: facts(
        use(purpose=LOGIN, path="/data/hf/token"),
        tokens=(token(in_use=False),),
        environ={"HF_TOKEN": "hf_x"},
    ),
    "a profile line that the process has": lambda: facts(
        use(path="/data/hf/hub"),
        environ={"HF_HOME": "/data/hf"},
        settings=(Setting(name="HF_HOME", value="/data/hf", file="/home/me/.bashrc", line=3),),
    ),
    "a profile line of something else": lambda: facts(
        settings=(Setting(name="EDITOR", value="vi", file="/home/me/.bashrc", line=3),)
    ),
    "a tilde that the library expands": lambda: literal(f"{HOME}/hf/hub", f"{HOME}/hf/hub"),
    "an absolute value": lambda: facts(use(path="/d/hub"), environ={"HF_HOME": "/d"}),
    "a value with a slash at its end": lambda: facts(
        use(path="/d/hub"), environ={"HF_HOME": "/d/"}
    ),
    "a variable that an older version reads": lambda: facts(
        use("transformers", path="/x"),
        environ={"TRANSFORMERS_CACHE": "/x"},
        interpreter=interpreter(
            use("transformers", path="/x"), versions={"transformers": "4.57.1"}
        ),
    ),
    "a switch that is off": lambda: facts(
        environ={"HF_HUB_ENABLE_HF_TRANSFER": "0", "HF_HUB_DISABLE_XET": "0"}
    ),
    "both names with one value": lambda: facts(
        use(path="/a"), environ={"HUGGINGFACE_HUB_CACHE": "/a", "HF_HUB_CACHE": "/a"}
    ),
    "a variable set before the import": lambda: facts(program=program(*reversed(LATE))),
    "a variable read at call": lambda: facts(
        program=program(
            Import(library="torch", line=1),
            Assignment(name="TORCH_HOME", value="/d", line=2, how="os.environ"),
        )
    ),
    "an import that reads nothing": lambda: facts(
        program=program(Import(library="json", line=1), LATE[1])
    ),
    "a late assignment of the value it has": lambda: facts(
        use(path="/d/hub"), environ={"HF_HOME": "/d"}, program=program(*LATE)
    ),
    "two caches with different repos in use": lambda: facts(
        inventory=inventory(cache(HUB, repo("o/m", f"{HUB}/models--o--m", "a")))
    ),
    "one generation": lambda: facts(
        inventory=inventory(cache(HUB, repo("o/m", f"{HUB}/m", "a"), layout="shared blobs v1")),
        clients=(HubClient(version="2.4.0", site="/a"), HubClient(version="1.32.0", site="/b")),
    ),
    "two generations on the old layout": lambda: facts(
        inventory=inventory(cache(HUB, repo("o/m", f"{HUB}/m", "a"))),
        clients=(HubClient(version="2.4.0", site="/a"), HubClient(version="0.36.2", site="/b")),
    ),
    "a file changed by its user": lambda: facts(verification=verification("changed_locally")),
    "some lock files": lambda: facts(idle_locks={HUB: 12}),
    "locks that hold": lambda: facts(
        locks=(LockTest(path=Path(HUB), excluded=True, detail="kept out"),)
    ),
    "a cache_dir that is the cache": lambda: facts(
        use(path="/jobs/c"),
        environ={"HF_HUB_CACHE": "/jobs/c"},
        program=program(
            literals=(PathLiteral(keyword="cache_dir", value="./c", call="load", line=4),)
        ),
    ),
}


@pytest.mark.parametrize("code", list(ILL))
def test_what_is_wrong_is_found(code: str) -> None:
    [finding] = found(ILL[code](), code)
    assert finding.message
    assert finding.remedy


def test_every_kind_has_facts_that_call_for_it() -> None:
    assert set(ILL) == set(DOCTOR) == set(TROUBLE_OF)


@pytest.mark.parametrize("name", list(NEARLY))
def test_what_is_in_order_is_left_alone(name: str) -> None:
    assert [f for f in examine(NEARLY[name]()) if f.severity != Severity.INFO] == []


@pytest.mark.parametrize("name", list(ILL))
def test_no_rule_says_more_than_it_knows(name: str) -> None:
    """One illness brings its own finding, and at most the ones that follow from it."""
    follows = {
        "temporary_in_memory": {"cache_in_memory"},
        "variable_literal": set(),
        "same_repo_in_two_caches": {"cache_left_behind"},
        "cache_on_small_disk": set(),
        "token_on_shared_volume": set(),
    }
    codes = {f.code for f in examine(ILL[name]())} - {name} - follows.get(name, set())
    assert codes == set()


def test_little_space_is_a_warning_and_none_an_error() -> None:
    [low] = found(with_room(facts(), free_bytes=5 * GB), "space_low")
    [none] = found(with_room(facts(), free_bytes=5), "space_low")
    assert (low.severity, none.severity) == (Severity.WARNING, Severity.ERROR)


def test_full_disk_is_mended_by_the_larger_one_and_the_login_stays() -> None:
    full = mount("/", free=GB // 2, total=20 * GB)
    ill = with_room(facts(on=full, candidates=(BIG,), tokens=(token(),)), free_bytes=GB // 2)
    [finding] = found(ill, "space_low")
    assert finding.remedy == (
        "mkdir -p /data/huggingface && "
        f"export HF_HOME=/data/huggingface HF_TOKEN_PATH={HOME}/.cache/huggingface/token"
    )


def test_the_variable_that_decides_is_the_one_to_change() -> None:
    small = mount("/", free=15 * GB, total=20 * GB)
    ill = facts(use(path="/hub"), on=small, candidates=(BIG,), environ={"HF_HUB_CACHE": "/hub"})
    [finding] = found(ill, "cache_on_small_disk")
    assert finding.remedy == "mkdir -p /data/hub && export HF_HUB_CACHE=/data/hub"


def test_one_value_in_three_places_names_each() -> None:
    ill = facts(
        use(path="/scratch/hf/hub"),
        use("datasets", "datasets as Arrow", "/jobs/$SCRATCH/hf/datasets", "$SCRATCH/hf/datasets"),
        environ={"HF_HOME": "$SCRATCH/hf", "SCRATCH": "/scratch"},
    )
    [finding] = found(ill, "variable_literal")
    assert "datasets keeps its datasets as Arrow in /jobs/$SCRATCH/hf/datasets" in finding.message
    assert "only huggingface_hub expands it" in finding.message
    assert finding.remedy == "export HF_HOME=/scratch/hf"


def test_a_late_variable_is_mended_in_front_of_the_command() -> None:
    words = ("CUDA_VISIBLE_DEVICES=0", "python", "t.py", "--name", "a b")
    ill = facts(program=program(*LATE, words=words, prefix={"CUDA_VISIBLE_DEVICES": "0"}))
    [finding] = found(ill, "variable_after_import")
    assert finding.remedy == "HF_HOME=/d CUDA_VISIBLE_DEVICES=0 python t.py --name 'a b'"
    assert "line 2" in finding.message
    assert "line 1" in finding.message


@pytest.mark.parametrize("layout", ["repo blobs", "shared blobs v1"])
def test_two_caches_become_one_by_one_command(layout: str) -> None:
    [finding] = found(two_caches(layout), "same_repo_in_two_caches")
    assert finding.remedy == f"gradience cache merge {OLD} {HUB}"


SHARED = {"mode": 0o2775, "group": "lab"}
NFS = mount("/old", network=True)
USE_IT = f": use it instead of a copy of your own, with HF_HUB_CACHE={OLD}"
OF_OTHERS: dict[str, tuple[dict[str, Any], str]] = {
    "another user's": (
        {"roots": {OLD: place(OLD, owner="ann", mine=False)}},
        f"# others may use {OLD} (owner ann){USE_IT}",
    ),
    "another user's, and closed": (
        {"roots": {OLD: place(OLD, owner="ann", mine=False, writable=False)}},
        f"# others may use {OLD} (owner ann): leave it as it is",
    ),
    "on a network mount": (
        {"mount_of": {OLD: NFS, HUB: mount()}},
        f"# others may use {OLD} (on a network mount){USE_IT}",
    ),
    "shared with a group": (
        {"roots": {OLD: place(OLD, **SHARED)}},
        f"# others may use {OLD} (shared with the group lab){USE_IT}",
    ),
    "shared with another group": (
        {"roots": {OLD: place(OLD, **SHARED), HUB: place(HUB, mode=0o2775, group="staff")}},
        f"# others may use {OLD} (shared with the group lab){USE_IT}",
    ),
}


@pytest.mark.parametrize("whose", list(OF_OTHERS))
@pytest.mark.parametrize("code", ["same_repo_in_two_caches", "cache_left_behind"])
def test_a_cache_that_others_use_does_not_become_a_link(whose: str, code: str) -> None:
    more, remedy = OF_OTHERS[whose]
    ill = two_caches(**more)
    if code == "cache_left_behind":
        only = cache(OLD, repo("o/m", f"{OLD}/models--o--m", "a"))
        ill = dataclasses.replace(ill, inventory=inventory(only))
    [finding] = found(ill, code)
    assert finding.remedy == remedy


ONES_OWN: dict[str, dict[str, Any]] = {
    "into another user's": {"roots": {HUB: place(HUB, owner="ann", mine=False)}},
    "into one on a network mount": {"mount_of": {HUB: NFS}},
    "both on a network mount": {"mount_of": {OLD: NFS, HUB: NFS}},
    "into one that a group shares": {"roots": {HUB: place(HUB, **SHARED)}},
    "both shared with one group": {"roots": {OLD: place(OLD, **SHARED), HUB: place(HUB, **SHARED)}},
    "setgid, and not the group's to write": {"roots": {OLD: place(OLD, mode=0o2755)}},
}


@pytest.mark.parametrize("how", list(ONES_OWN))
def test_ones_own_cache_is_brought_into_the_one_in_use(how: str) -> None:
    [finding] = found(two_caches(**ONES_OWN[how]), "same_repo_in_two_caches")
    assert finding.remedy == f"gradience cache merge {OLD} {HUB}"


@pytest.mark.parametrize("place", [OLD, HUB, "/elsewhere"])
def test_a_cache_is_brought_nowhere_while_a_move_of_it_is_unfinished(place: str) -> None:
    begun = Unfinished(
        words="cut off", command=f"gradience cache move {place} /n", places=(place, "/n")
    )
    merge = f"gradience cache merge {OLD} {HUB}"
    [unfinished] = found(two_caches(unfinished=(begun,)), "unfinished_move")
    [twice] = found(two_caches(unfinished=(begun,)), "same_repo_in_two_caches")
    assert unfinished.remedy == begun.command
    assert (twice.remedy == merge) == (place == "/elsewhere")
    assert twice.remedy == merge or "again, once what was cut off has ended" in twice.remedy


@pytest.mark.parametrize("closed", [HUB, str(Path(HUB).parent), OLD, str(Path(OLD).parent)])
def test_no_merge_is_offered_that_would_be_refused(closed: str) -> None:
    """It writes in both caches, and in the directories above: its own state, and the link."""
    ill = two_caches(
        roots={closed: place(closed, writable=False, owner="root", mine=closed == OLD)}
    )
    [finding] = found(ill, "same_repo_in_two_caches")
    assert finding.remedy == (
        f"# {OLD} cannot be brought to {HUB}: me may not write in {closed} (owner root)"
    )


ARROWS = f"{HOME}/.cache/huggingface/datasets"


def part_of(kind: str, what: str, root: str, size: int = GB) -> Any:
    entry = repo(what, f"{root}/{what}", size=size)
    return msgspec.structs.replace(entry, kind=kind, what=what)


def datasets_left(*more: Any, size: int = GB, **changes: Any) -> Facts:
    old = cache(OLD, part_of("datasets", "dataset", OLD, size), kind="datasets", chosen_by=FORMER)
    new = {"looked_at": {"datasets": ARROWS}, "roots": {ARROWS: place(ARROWS, kind="missing")}}
    return facts(inventory=inventory(old, *more), **{**new, **changes})


def test_what_datasets_left_behind_is_moved_where_its_place_is_free() -> None:
    [finding] = found(datasets_left(), "cache_left_behind")
    assert finding.message == (
        f"{OLD} holds 1.00 GB of datasets (dataset) where no library looks; they use {ARROWS}."
    )
    assert finding.remedy == f"gradience cache move {OLD} {ARROWS}"


def test_what_torch_left_behind_is_told_apart_from_little_and_from_what_is_in_use() -> None:
    def torch_cache(size: int, chosen_by: str) -> Facts:
        old = cache(OLD, part_of("torch", "weights", OLD, size), kind="torch", chosen_by=chosen_by)
        return facts(inventory=inventory(old), looked_at={"torch": "/t"})

    [finding] = found(torch_cache(GB, FORMER), "cache_left_behind")
    assert finding.remedy == f"gradience cache move {OLD} /t"
    assert found(torch_cache(900_000, FORMER), "cache_left_behind") == []
    assert found(torch_cache(GB, "default"), "cache_left_behind") == []


def test_two_caches_of_datasets_do_not_merge_and_the_old_one_is_cleaned() -> None:
    both = {"inodes": 3, "kind": "datasets"}
    ill = datasets_left(cache(ARROWS, part_of("datasets", "dataset", ARROWS), **both), roots={})
    [finding] = found(ill, "cache_left_behind")
    assert finding.remedy == (
        f"HF_DATASETS_CACHE={OLD} gradience cache clean --kind datasets --idle 30d  "
        "# both have content; or export that variable, to use this one"
    )


VOLUME = mount("/old", free=90 * GB, total=100 * GB)


def test_what_lies_on_a_volume_is_not_brought_into_the_home_directory() -> None:
    """The home directory of a container is wiped at a stop; the volume is not."""
    at = {"mount_of": {OLD: VOLUME, HUB: mount(), ARROWS: mount()}}
    stays = "  # it lies on a volume of its own, and may stay there"
    [twice] = found(two_caches(**at), "same_repo_in_two_caches")
    assert twice.remedy == f"export HF_HUB_CACHE={OLD}{stays}"
    [arrow] = found(datasets_left(**at), "cache_left_behind")
    assert arrow.remedy == f"export HF_DATASETS_CACHE={OLD}{stays}"


@pytest.mark.parametrize(
    "volume",
    [mount("/old", free=GB), mount("/old", in_memory=True), mount("/", free=90 * GB)],
    ids=["full", "in memory", "the disk of the system"],
)
def test_what_lies_on_a_poor_volume_is_brought_home(volume: Any) -> None:
    at = {"mount_of": {OLD: volume, HUB: mount("/home"), ARROWS: mount("/home")}}
    [finding] = found(two_caches(**at), "same_repo_in_two_caches")
    assert finding.remedy == f"gradience cache merge {OLD} {HUB}"


def test_nothing_is_brought_into_a_cache_that_a_volume_will_replace() -> None:
    third = cache("/third", repo("o/k", "/third/models--o--k", "a"))
    caches = two_caches().inventory.caches  # type: ignore[union-attr] # two_caches has one
    ill = facts(inventory=inventory(*caches, third), mount_of={OLD: VOLUME, HUB: mount()})
    [finding] = [f for f in found(ill, "cache_left_behind") if "/third" in f.message]
    assert finding.remedy.startswith("gradience doctor  # again")


SWEPT: dict[str, dict[str, Any]] = {
    "a cache in it": {"more": (cache(f"{OLD}/hub", repo("o/m", f"{OLD}/hub/m")),)},
    "its own new place": {"looked_at": {"datasets": f"{OLD}/arrow"}},
    "something of a user": {},
}


@pytest.mark.parametrize("what", list(SWEPT))
def test_no_move_sweeps_up_what_is_not_of_that_cache(what: str) -> None:
    more = {**SWEPT[what]}
    ill = datasets_left(*more.pop("more", ()), **more)
    if what == "something of a user":
        entries = (part_of("datasets", "dataset", OLD), part_of("datasets", "other", OLD))
        old = cache(OLD, *entries, kind="datasets", chosen_by=FORMER)
        ill = dataclasses.replace(ill, inventory=inventory(old))
    [finding] = [f for f in found(ill, "cache_left_behind") if "datasets" in f.message]
    assert finding.remedy.startswith(f"# {OLD} holds {OLD}/")


def test_a_hub_cache_of_names_without_a_file_is_not_left_behind() -> None:
    tried = msgspec.structs.replace(repo("o/gated", f"{OLD}/models--o--gated"), files=0)
    assert found(facts(inventory=inventory(cache(OLD, tried))), "cache_left_behind") == []


def test_a_comment_does_nothing_whatever_the_path_in_it_holds() -> None:
    odd = "/a\nrm -rf $HOME # it's; `id`"
    repos = [cache(root, repo("o/m", f"{root}/m", "a")) for root in (odd, HUB)]
    ill = facts(inventory=inventory(*repos), roots={odd: place(odd, owner="ann", mine=False)})
    [finding] = found(ill, "same_repo_in_two_caches")
    assert finding.remedy.startswith("# others may use ")
    assert finding.remedy.isprintable()
    assert shlex.split(finding.remedy, comments=True) == []


@pytest.mark.parametrize(
    ("more", "rest"),
    [
        ({}, f" && gradience cache merge {HUB} /data/huggingface/hub"),
        (
            {"roots": {HUB: place(HUB, owner="ann", mine=False)}},
            f"  # others may use {HUB} (owner ann): what lies there stays",
        ),
        (
            {"roots": {HUB: place(HUB, **SHARED)}},
            f"  # others may use {HUB} (shared with the group lab): what lies there stays",
        ),
        (
            {"on": mount("/", free=15 * GB, total=20 * GB, network=True)},
            f"  # others may use {HUB} (on a network mount): what lies there stays",
        ),
    ],
)
def test_what_others_use_on_a_small_disk_stays_there(more: dict[str, Any], rest: str) -> None:
    small = mount("/", free=15 * GB, total=20 * GB)
    lies = inventory(cache(HUB, repo("o/m", f"{HUB}/models--o--m", "a")))
    [finding] = found(
        facts(**{"on": small, "candidates": (BIG,), "inventory": lies, **more}),
        "cache_on_small_disk",
    )
    assert finding.remedy == f"mkdir -p /data/huggingface && export HF_HOME=/data/huggingface{rest}"


def test_a_broken_checkpoint_is_moved_aside_not_deleted() -> None:
    [finding] = found(damaged("broken_checkpoint"), "broken_checkpoint")
    assert finding.remedy == f"mv {HUB}/models--o--m {HUB}/broken-models--o--m"


def test_many_copies_are_one_finding() -> None:
    names = [f"o/m{i}" for i in range(30)]
    ill = facts(
        inventory=inventory(
            *(cache(root, *(repo(n, f"{root}/{n}", "a") for n in names)) for root in (HUB, OLD))
        )
    )
    [finding] = found(ill, "same_repo_in_two_caches")
    assert "and 26 more" in finding.message


def test_a_repo_being_downloaded_is_not_called_broken() -> None:
    damage = [
        Damage(code="stale_ref", path=f"{REPO}/refs/main", message="why"),
        Damage(code="incomplete", path=f"{REPO}/blobs/x.incomplete", message="why", held=True),
    ]
    ill = facts(inventory=inventory(cache(HUB, repo("o/m", REPO, "a", damage=damage))))
    assert examine(ill) == ()


def test_large_leftovers_are_a_warning() -> None:
    [small] = found(damaged("orphan_blob", size=10), "leftovers")
    [large] = found(damaged("orphan_blob", size=2 * GB), "leftovers")
    assert (small.severity, large.severity) == (Severity.INFO, Severity.WARNING)
    assert "holds 1 blob that no snapshot uses" in small.message


def test_parts_of_another_user_are_given_back() -> None:
    [finding] = found(facts(parts=(part(),)), "foreign_owner")
    assert finding.remedy == f"sudo chown -R me:me {HUB}"


def test_a_merge_that_was_cut_off_is_ended_by_its_own_command() -> None:
    [finding] = found(facts(unfinished=(CUT_OFF,)), "unfinished_move")
    assert (finding.message, finding.remedy) == (f"{CUT_OFF.words}.", CUT_OFF.command)


@pytest.mark.parametrize(
    ("mode", "remedy"),
    [
        (0o2775, "sudo usermod -aG ml me  # then log in again; or ask ada, whose cache it is"),
        (0o775, "sudo usermod -aG ml me  # then log in again; or ask ada, whose cache it is"),
        (0o2755, f'sudo "$(command -v gradience)" cache share {HUB} --group ml'),
        (0o755, f"sudo chown -R me:me {Path(HUB).parent}"),
    ],
)
def test_a_cache_of_a_team_stays_the_teams(mode: int, remedy: str) -> None:
    team = place(HUB, writable=False, mine=False, owner="ada", group="ml", mode=mode)
    [finding] = found(facts(places={HUB: team}), "directory_unwritable")
    assert finding.remedy == remedy


def test_parts_that_one_of_a_team_left_closed_are_shared_with_the_team() -> None:
    team = place(HUB, mine=False, owner="ada", group="ml", mode=0o2775)
    [finding] = found(facts(places={HUB: team}, parts=(part(),)), "foreign_owner")
    assert finding.remedy == f'sudo "$(command -v gradience)" cache share {HUB} --group ml'


def test_what_everybody_of_a_users_own_group_may_write_is_no_cache_of_a_team() -> None:
    own = place(HUB, writable=False, mine=False, owner="ada", group="ada", mode=0o775)
    [finding] = found(facts(places={HUB: own}), "directory_unwritable")
    assert finding.remedy == f"sudo chown -R me:me {Path(HUB).parent}"


def test_a_directory_that_is_not_there_is_made_and_its_parent_left_alone() -> None:
    hub = "/data/hf/hub"
    ill = facts(
        use(path=hub),
        environ={"HF_HOME": "/data/hf"},
        places={
            hub: place(hub, kind="missing", existing=Path("/data"), writable=False, mine=False)
        },
    )
    [finding] = found(ill, "directory_unwritable")
    assert finding.remedy == "sudo mkdir -p /data/hf && sudo chown me:me /data/hf"


def test_a_read_only_mount_is_not_mended_by_chown() -> None:
    ill = facts(on=mount("/", read_only=True), places={HUB: place(HUB, writable=False, mine=False)})
    [finding] = found(ill, "directory_unwritable")
    assert "mounted read-only" in finding.message
    assert "chown" not in finding.remedy


def test_a_cache_behind_the_closed_directory_of_another_user_is_put_elsewhere() -> None:
    shut = {"existing": Path("/theirs"), "shut": True, "owner": "ann", "kind": "missing"}
    behind = place("/theirs/x/hub", writable=False, mine=False, **shut)
    ill = facts(use(path="/theirs/x/hub"), environ={"HF_HOME": "/theirs/x"})
    ill = dataclasses.replace(ill, places={"/theirs/x/hub": behind})
    [finding] = found(ill, "directory_unwritable")
    assert "me may not enter /theirs (owner ann:me" in finding.message
    assert finding.remedy.startswith(f"mkdir -p {HOME}/.cache/huggingface && export HF_HOME=")


def test_all_compiled_code_on_one_mount_without_execution_is_moved_by_one_command() -> None:
    uses = use("torch", COMPILED, "/s/inductor"), use("torch", EXTENSIONS, "/s/extensions")
    [finding] = found(facts(*uses, on=mount("/s", no_exec=True)), "no_exec")
    folders = [f"{HOME}/.cache/{name}" for name in ("torchinductor", "torch_extensions")]
    assert finding.remedy == (
        f"mkdir -p {' '.join(folders)} && "
        f"export TORCHINDUCTOR_CACHE_DIR={folders[0]} TORCH_EXTENSIONS_DIR={folders[1]}"
    )


def test_what_cannot_be_read_is_given_back_and_opened() -> None:
    [finding] = found(ILL["cache_unreadable"](), "cache_unreadable")
    assert finding.remedy == f"sudo chown -R me:me {HUB} && chmod -R u+rwX {HUB}"


@pytest.mark.parametrize(("mine", "times"), [(True, 1), (False, 0)])
def test_a_former_cache_is_given_back_only_if_it_was_ones_own(mine: bool, times: int) -> None:
    closed = (Unreadable(path=f"{OLD}/x", reason="Permission denied"),)
    former = cache(OLD, chosen_by=FORMER, unreadable=closed, unreadable_count=1)
    ill = facts(inventory=inventory(former), roots={OLD: place(OLD, mine=mine)})
    assert len(found(ill, "cache_unreadable")) == times


def test_broken_weights_of_ones_own_on_a_read_only_disk_wait_for_no_other_user() -> None:
    ill = facts(verification=verification("zero_filled"), closed={f"{REPO}/blobs": "me"})
    [finding] = found(ill, "broken_weights")
    assert finding.remedy == "gradience cache verify o/m  # they cannot be deleted where they are"


@pytest.mark.parametrize(
    ("obstacle", "remedy"),
    [
        ({"link": Path("/d"), "kind": "broken link"}, "rm /d && mkdir -p /d"),
        ({"is_dir": False, "kind": "missing"}, "mv /d /d.old && mkdir -p /d"),
    ],
)
def test_what_stands_in_the_way_of_several_caches_is_removed_once(
    obstacle: dict[str, Any], remedy: str
) -> None:
    paths = ("/d/hub", "/d/torch/hub")
    ill = facts(use(path=paths[0]), use("torch", TORCH_HUB, paths[1]))
    blocked = {p: place(p, existing=Path("/d"), writable=False, **obstacle) for p in paths}
    [finding] = found(dataclasses.replace(ill, places=blocked), "directory_unwritable")
    assert "huggingface_hub (models and files), torch (torch.hub models)" in finding.message
    assert finding.remedy == remedy


def test_dotenv_loaded_after_the_import_is_late_for_each_of_its_variables() -> None:
    loaded = Assignment(name="", value=".env", line=3, how="load_dotenv")
    settings = (
        Setting(name="HF_HOME", value="/d", file=".env", line=1),
        Setting(name="WANDB_DIR", value="/w", file=".env", line=2),
    )
    ill = facts(program=program(LATE[0], loaded, dotenv=settings))
    [finding] = found(ill, "variable_after_import")
    assert "HF_HOME" in finding.message


def test_late_variables_are_one_finding_and_one_command_sets_them_all() -> None:
    later = (
        LATE[0],
        LATE[1],
        Assignment(name="HF_HUB_CACHE", value="/c", line=3, how="os.environ"),
        Assignment(name="HF_ASSETS_CACHE", value=None, line=4, how="os.environ"),
        Assignment(name="TORCH_HOME", value="/t", line=5, how="os.putenv"),
    )
    ill = facts(program=program(*later))
    known, computed = found(ill, "variable_after_import")
    [by_putenv] = found(ill, "variable_by_putenv")
    assert known.remedy == "HF_HOME=/d HF_HUB_CACHE=/c TORCH_HOME=/t python t.py"
    assert known.remedy == by_putenv.remedy
    assert "line 2 sets HF_HOME after line 1" in known.message
    assert "line 3 sets HF_HUB_CACHE after line 1" in known.message
    assert computed.remedy.startswith("# move the line that sets HF_ASSETS_CACHE above")


def test_variables_of_profiles_are_one_finding_with_every_value() -> None:
    settings = [
        Setting(name="HF_HOME", value="/d/hf", file="/home/me/.bashrc", line=1),
        Setting(name="TORCH_HOME", value="$HOME/t", file="/home/me/.bashrc", line=2),
        Setting(name="WANDB_DIR", value="/w", file="/home/me/.profile", line=3, exported=False),
    ]
    ill = facts(settings=tuple(settings), environ={"HOME": "/home/me"})
    [finding] = found(ill, "variable_not_in_process")
    assert finding.message.startswith("3 variables of shell profiles are not in this process")
    assert (
        "in /home/me/.bashrc, HF_HOME (line 1), TORCH_HOME (line 2); in /home/me/.profile, "
        "WANDB_DIR (line 3, without `export`)." in finding.message
    )
    assert finding.remedy == "export HF_HOME=/d/hf TORCH_HOME=/home/me/t WANDB_DIR=/w"
    [written] = [f for f in summarise(ill).findings if f.code == finding.code]
    assert [(v.name, v.value, v.line) for v in written.variables] == [
        ("HF_HOME", "/d/hf", 1),
        ("TORCH_HOME", "/home/me/t", 2),
        ("WANDB_DIR", "/w", 3),
    ]


def test_libraries_that_are_missing_are_installed_by_one_command() -> None:
    imports = [Import(library=name, line=n) for n, name in enumerate(("datasets", "peft"), start=1)]
    [finding] = found(facts(program=program(*imports)), "library_missing")
    assert "line 1 imports datasets, line 2 imports peft" in finding.message
    assert "-m pip install datasets peft  #" in finding.remedy


def test_every_path_in_a_remedy_is_quoted() -> None:
    odd = f"{HOME}/my cache; rm -rf $HOME/hub"
    ill = facts(use(path=odd), places={odd: place(odd, writable=False, mine=True)})
    [finding] = found(ill, "directory_unwritable")
    assert finding.remedy == f"chmod u+rwx '{odd}'"


def test_a_purpose_is_a_purpose_of_its_question() -> None:
    assert use(purpose=MODELS).variables[0] == ("HF_HUB_CACHE", "")


def test_a_variable_that_nobody_reads_decides_no_path() -> None:
    machine = facts(use("transformers", path="/w"), environ={"TRANSFORMERS_CACHE": "/x"})
    assert [place.because for place in summarise(machine).places] == ["default"]


@pytest.mark.parametrize(
    ("answer", "because"), [("", "HF_HUB_CACHE"), ("/home/me/x/hub", "HF_HOME")]
)
def test_an_empty_variable_decides_where_the_answer_shows_it(answer: str, because: str) -> None:
    asked = msgspec.structs.replace(use(path=answer or "/work"), answer=answer)
    machine = facts(asked, environ={"HF_HUB_CACHE": "", "HF_HOME": "~/x"})
    assert [place.because for place in summarise(machine).places] == [because]


@pytest.mark.parametrize(("root", "cleans"), [("/hub", True), ("/other/hub", False)])
def test_a_full_disk_is_cleaned_only_where_a_cache_lies_on_it(root: str, cleans: bool) -> None:
    ill = facts(
        use(path="/hub"),
        candidates=(Candidate(path=Path("/other"), mount=mount("/other", free=GB)),),
        inventory=inventory(cache(root, repo("o/m", f"{root}/models--o--m", "a"))),
    )
    [finding] = found(with_room(ill, free_bytes=5 * GB), "space_low")
    assert finding.remedy.startswith("gradience cache clean") is cleans
    assert finding.remedy.startswith("# no cache lies on /: free space") is not cleans


def test_nothing_is_merged_into_a_cache_that_is_about_to_be_left() -> None:
    """A full disk is mended by another one: a merge into it would empty what is used from then."""
    ill = facts(
        on=mount("/", free=GB, total=100 * GB),
        candidates=(BIG,),
        inventory=two_caches().inventory,
    )
    assert "export HF_HOME=" in found(ill, "cache_on_small_disk")[0].remedy
    [finding] = found(ill, "same_repo_in_two_caches")
    assert finding.remedy.startswith("gradience doctor  # again")


def test_datasets_on_a_small_disk_keep_their_name_where_parts_of_them_are_not_there_yet() -> None:
    arrow = str(HOME / ".cache/huggingface/datasets")
    extracted = f"{arrow}/downloads/extracted"
    absent = place(extracted, kind="missing", existing=Path(arrow), resolved=Path(arrow))
    ill = facts(
        use("datasets", ARROW, arrow),
        use("datasets", "extracted archives", extracted),
        on=mount("/", free=15 * GB, total=20 * GB),
        candidates=(BIG,),
        places={arrow: place(arrow), extracted: absent},
        inventory=inventory(cache(arrow, repo("imdb", f"{arrow}/imdb", "a"), kind="datasets")),
    )
    [finding] = found(with_room(ill, free_bytes=5 * GB), "space_low")
    assert f"merge {arrow} /data/huggingface/datasets" in finding.remedy
    assert finding.remedy.count("gradience cache") == 1
