"""GRADIENCE_CACHE_DIR decides, and never follows the working directory."""

from pathlib import Path

import pytest

from gradience.errors import UsageError
from gradience.paths import audits_dir, base_norms_dir, cache_dir, nearest

HOME = Path("/home/me")


def test_the_promised_places() -> None:
    assert cache_dir({}, HOME) == Path("/home/me/.cache/gradience")
    runpod = {"GRADIENCE_CACHE_DIR": "/workspace/gradience_cache"}
    assert base_norms_dir(runpod, HOME) == Path("/workspace/gradience_cache/base_norms")
    assert audits_dir(runpod, HOME) == Path("/workspace/gradience_cache/audits")


def test_an_empty_variable_is_unset() -> None:
    assert cache_dir({"GRADIENCE_CACHE_DIR": ""}, HOME) == HOME / ".cache" / "gradience"


@pytest.mark.parametrize(
    ("value", "path"),
    [("~/g", "/home/me/g"), ("$S/g", "/s/g"), ("${S}/g", "/s/g"), ("/x/$S_T", None)],
)
def test_variables_and_home_are_expanded(value: str, path: str | None) -> None:
    environ = {"GRADIENCE_CACHE_DIR": value, "S": "/s"}
    if path is None:
        with pytest.raises(UsageError):
            cache_dir(environ, HOME)
    else:
        assert cache_dir(environ, HOME) == Path(path)


@pytest.mark.parametrize("value", ["cache", "./cache", "$UNSET/g"])
def test_a_path_that_would_follow_the_working_directory_is_refused(value: str) -> None:
    with pytest.raises(UsageError, match="not an absolute path"):
        cache_dir({"GRADIENCE_CACHE_DIR": value}, HOME)


@pytest.mark.parametrize(
    ("typed", "meant"),
    [("runs/lr1e3/final", "runs/lr1e-3/final"), ("rusn", "runs"), ("elsewhere", None)],
)
def test_the_nearest_path_matches_part_by_part(
    tmp_path: Path, typed: str, meant: str | None
) -> None:
    (tmp_path / "runs" / "lr1e-3" / "final").mkdir(parents=True)
    assert nearest(tmp_path / typed) == (None if meant is None else tmp_path / meant)
