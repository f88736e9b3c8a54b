"""What every platform keeps, over every registered name."""

from pathlib import Path

import pytest

from factories_mounts import container_disk, make_mount
from gradience.storage.environment.layout import layout
from gradience.storage.environment.platforms import PLATFORMS, detect
from gradience.storage.environment.platforms.detection import all_marks, all_variables
from gradience.storage.environment.transfer import Transfer

NO_SWITCH = Transfer(switches=(), reason="nothing to switch")


@pytest.mark.parametrize("name", list(PLATFORMS))
def test_a_platform_says_what_it_is(name: str) -> None:
    platform = PLATFORMS[name]
    assert platform.name == name
    assert platform.title
    assert platform.keeps.endswith(".")
    assert name == "local" or platform.variables or platform.marks
    assert all(c.path[0] in "/$" for c in platform.roots)
    assert not platform.home or platform.home.startswith("/")


@pytest.mark.parametrize("name", list(PLATFORMS))
def test_no_hint_alone_decides_for_a_disk_that_is_not_there(name: str) -> None:
    platform = PLATFORMS[name]
    environ = dict.fromkeys(platform.variables, "x")
    found = detect(environ, [container_disk()], home=Path("/h"), marks=set(platform.marks))
    volumes = {c.path for c in platform.roots if c.mounted}
    assert str(found.root) not in volumes


@pytest.mark.parametrize("name", list(PLATFORMS))
def test_hint_and_disk_together_decide(name: str) -> None:
    platform = PLATFORMS[name]
    environ = dict.fromkeys(platform.variables, "x")
    mounts = [container_disk()]
    for candidate in platform.roots:
        if candidate.path.startswith("$"):
            environ[candidate.path[1:]] = "/big/me"
            mounts.append(make_mount("/big", network=True))
        else:
            mounts.append(make_mount(candidate.path.replace("*", "name"), network=True))
    if platform.any_volume:
        mounts.append(make_mount("/volume", network=True))
    found = detect(environ, mounts, home=Path("/h"), marks=set(platform.marks))
    assert found.name == name
    made = layout(
        platform, found.root, local=found.local, token=Path("/h/token"), transfer=NO_SWITCH
    )
    assert all(value.startswith("/") for value in made.values.values())
    assert all(not mark.startswith("$") for mark in all_marks())
    assert set(platform.variables) <= all_variables()


@pytest.mark.parametrize("name", list(PLATFORMS))
def test_the_root_for_another_machine_is_absolute_or_must_be_given(name: str) -> None:
    root = PLATFORMS[name].default_root({}, Path("/h"))
    assert root is None or root.is_absolute()
