"""Trouble two of our user's list: permission denied. Owners, modes, groups and the login file."""

from collections.abc import Iterator
from pathlib import Path

from gradience.findings import Finding
from gradience.storage.doctor import finding_kinds as kinds
from gradience.storage.doctor.facts import Facts, ForeignPart, Place, Use
from gradience.storage.doctor.questions import LOGIN
from gradience.storage.doctor.rules_places import pointed
from gradience.storage.doctor.values import deciding, export, inside, listed, meant, quoted

_GROUP_WRITE = 0o020
_SETGID = 0o2000
_OTHERS_READ = 0o044


def unwritable(facts: Facts) -> Iterator[Finding]:
    """Places where a library must write and this user may not; one for each way to let it in."""
    roots: dict[Path, list[Use]] = {}
    for use in facts.uses:
        place = facts.places.get(use.path)
        if place is not None and not place.writable and use.purpose != LOGIN:
            roots.setdefault(_root(use, facts), []).append(use)
    found: dict[tuple[Path, str], list[Use]] = {}
    for root, uses in roots.items():
        place = facts.places[uses[0].path]
        found.setdefault((place.existing, _let_in(root, uses, place, facts)), []).extend(uses)
    for (_, remedy), uses in found.items():
        place = facts.places[uses[0].path]
        who = listed((f"{use.library} ({use.purpose})" for use in uses), 3)
        yield kinds.UNWRITABLE.found(
            f"{_obstacle(place, facts)}, where {who} must write.",
            remedy=remedy,
        )


def _obstacle(place: Place, facts: Facts) -> str:
    if place.link is not None:
        return f"{place.link} is a link to nothing (is its disk mounted?)"
    if not place.is_dir and place.existing != place.path:
        return f"{place.existing} is no directory"
    do = "enter" if place.shut else "write in"
    return (
        f"{facts.user or 'this user'} may not {do} {place.existing} (owner {place.owner}:"
        f"{place.group}, mode {place.mode & 0o7777:04o}{_read_only(place, facts)})"
    )


def _root(use: Use, facts: Facts) -> Path:
    """The directory to give to the user: what a variable names, or the library's usual one.

    Never the parent that happens to exist: that may be `/data`, or `/`.
    """
    decided = deciding(use, facts)
    wish = meant(facts.environ[decided[0]], facts) if decided else None
    if wish is not None and inside(use.path, wish):
        return Path(wish)
    usual = facts.home / ".cache" / "huggingface"
    return usual if inside(use.path, usual) else Path(use.path)


def _read_only(place: Place, facts: Facts) -> str:
    mount = facts.mount_of.get(str(place.path))
    return f", {mount.path} is mounted read-only" if mount and mount.read_only else ""


def _let_in(root: Path, uses: list[Use], place: Place, facts: Facts) -> str:
    mount = facts.mount_of.get(str(place.path))
    # In a directory that somebody else closed, one of our own would be out of reach.
    shut = place.shut and not place.mine
    if shut or (mount is not None and mount.read_only):
        return pointed(uses, _writable(facts), facts)
    # One command for all that lies below the obstacle: libraries make their own directories.
    if place.link is not None:
        return f"rm {quoted(place.link)} && mkdir -p {quoted(place.link)}"
    if not place.is_dir and place.existing != place.path:
        aside = place.existing.with_name(f"{place.existing.name}.old")
        return f"mv {quoted(place.existing)} {quoted(aside)} && mkdir -p {quoted(place.existing)}"
    if place.mine:
        return f"chmod u+rwx {quoted(place.existing)}"
    return _of_another(root, place, facts)


def _of_another(root: Path, place: Place, facts: Facts) -> str:
    """Make it this user's; what a team shares stays its owner's, who lets in one more."""
    owner = f"{facts.user}:{facts.group}"
    if not inside(place.existing, root):
        return f"sudo mkdir -p {quoted(root)} && sudo chown {owner} {quoted(root)}"
    if not place.of_team:
        return f"sudo chown -R {owner} {quoted(root)}"
    if not place.mode & _GROUP_WRITE:
        return share(place.existing, place.group, mine=False)
    command = f"sudo usermod -aG {place.group} {facts.user}"
    return f"{command}  # then log in again; or ask {place.owner}, whose cache it is"


def _writable(facts: Facts) -> Path:
    return facts.candidates[0].path if facts.candidates else facts.home / ".cache"


def foreign(facts: Facts) -> Iterator[Finding]:
    """Parts of a cache that its user cannot write: left by sudo, or by root in a container."""
    closed = {p.existing for p in facts.places.values() if not p.writable}  # found already
    for cache, parts in _by_cache([p for p in facts.parts if not p.writable]).items():
        if cache in closed:
            continue
        owners = listed(f"{p.owner}:{p.group}" for p in parts)
        mine = all(p.owner == facts.user for p in parts)
        change = f"chmod -R u+rwX {quoted(cache)}" if mine else given(cache, facts)
        yield kinds.FOREIGN_PARTS.found(
            f"in {cache}, {listed(str(p.path.relative_to(cache)) for p in parts)} cannot be "
            f"written by {facts.user or 'this user'} (owned by {owners}).",
            remedy=change,
        )


def given(cache: Path, facts: Facts, *, opened: bool = False) -> str:
    """The command that lets the user at all of a cache; one that a team shares stays the team's."""
    place = next((p for p in facts.places.values() if p.existing == cache), None)
    if place is not None and place.of_team:
        return share(cache, place.group, mine=False)
    modes = f" && chmod -R u+rwX {quoted(cache)}" if opened else ""
    return f"sudo chown -R {facts.user}:{facts.group} {quoted(cache)}{modes}"


def group_sharing(facts: Facts) -> Iterator[Finding]:
    """A cache that a group shares, with parts that shut the group out."""
    shared = _shared(facts)
    for cache, parts in _by_cache([p for p in facts.parts if p.writable]).items():
        place = next((p for p in facts.places.values() if p.existing == cache), None)
        if place is None or cache not in shared:
            continue
        closed = [p for p in parts if _shuts_out(p, place.group)]
        if closed:
            yield kinds.GROUP_BROKEN.found(
                f"{cache} is shared with the group {place.group}, but "
                f"{listed(_closed(p, cache) for p in closed)}: others of the group get "
                "'permission denied'.",
                remedy=share(cache, place.group, mine=all(p.owner == facts.user for p in closed)),
            )


def share(cache: Path, group: str, *, mine: bool) -> str:
    """The command that shares all of it, but for a login; only root may do so for others."""
    command = "gradience" if mine else 'sudo "$(command -v gradience)"'
    return f"{command} cache share {quoted(cache)} --group {group}"


def _closed(part: ForeignPart, cache: Path) -> str:
    name = part.path.relative_to(cache)
    return f"{name if part.path != cache else '.'} has mode {part.mode & 0o7777:04o}, {part.group}"


def _shuts_out(part: ForeignPart, group: str) -> bool:
    if part.group != group:
        return True
    # Blobs of the shared store are 0444 on purpose; what counts is that the group can add files.
    return part.is_dir and (not part.mode & _GROUP_WRITE or not part.mode & _SETGID)


def _shared(facts: Facts) -> set[Path]:
    """Caches that a group shares."""
    return {p.existing for p in facts.places.values() if p.shared}


def umask(facts: Facts) -> Iterator[Finding]:
    """New files will not be the group's to write."""
    shared = _shared(facts)
    if shared and facts.umask & _GROUP_WRITE:
        yield kinds.UMASK.found(
            f"the umask is {facts.umask:03o}, and {listed(map(str, sorted(shared)))} is "
            "shared with a group: what this user adds, others cannot change.",
            remedy="umask 002",
        )


def token(facts: Facts) -> Iterator[Finding]:
    """A login that others can read, or that lies on a volume of several machines."""
    for found in facts.tokens:
        if found.mode & _OTHERS_READ:
            yield kinds.TOKEN_READABLE.found(
                f"{found.path} has mode {found.mode & 0o7777:04o}: others can read the login.",
                remedy=f"chmod 600 {quoted(found.path)}",
            )
        mount = facts.mount_of.get(str(found.path))
        if found.in_use and mount is not None and mount.network:
            private = facts.home / ".cache" / "huggingface" / "token"
            if not inside(private, mount.path):
                yield kinds.TOKEN_SHARED.found(
                    f"{found.path} lies on {mount.path} ({mount.fs_type} from {mount.device}): who "
                    "mounts it has the login.",
                    remedy=f"mkdir -p {quoted(private.parent)} && mv {quoted(found.path)} "
                    f"{quoted(private)} && {export(HF_TOKEN_PATH=str(private))}",
                )


def _by_cache(parts: list[ForeignPart]) -> dict[Path, list[ForeignPart]]:
    found: dict[Path, list[ForeignPart]] = {}
    for part in parts:
        found.setdefault(part.cache, []).append(part)
    return found
