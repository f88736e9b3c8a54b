"""After a clean of any cache, huggingface_hub loads everything that stayed, without a network."""

import tempfile
from pathlib import Path

from huggingface_hub import snapshot_download
from hypothesis import given, settings
from hypothesis import strategies as st

from factories_caches import HubMaker, commit_of
from factories_changes import carry_out, clean_plan

CONTENTS = [bytes([number]) * 3000 * number for number in range(1, 6)]
files = st.dictionaries(
    st.sampled_from(["config.json", "w.safetensors", "sub/v.bin"]),
    st.sampled_from(CONTENTS),
    min_size=1,
)
revisions = st.dictionaries(
    st.tuples(st.sampled_from(["org/a", "org/b"]), st.sampled_from("abc")), files, min_size=1
)
rules = st.one_of(
    st.fixed_dictionaries({"revisions": st.sets(st.sampled_from("abc")).map(sorted)}),
    st.fixed_dictionaries({"names": st.just(["org/a"])}),
    st.fixed_dictionaries({"names": st.just(["org/*"]), "keep_last": st.integers(0, 2)}),
    st.fixed_dictionaries({"min_free": st.just(2**62)}),
    st.just({}),
)


@settings(max_examples=40, deadline=None)
@given(made=revisions, rule=rules, named=st.booleans(), shared=st.booleans(), force=st.booleans())
def test_what_a_clean_does_not_name_loads_offline_byte_for_byte(made, rule, named, shared, force):
    with tempfile.TemporaryDirectory() as name:
        hub = HubMaker(Path(name, "hub"), shared=shared)
        for (repo, revision), content in made.items():
            hub.add(repo, revision, content, ref=f"v{revision}" if named else None)
        plan = clean_plan(hub.hub, force=force, **rule)
        receipt = carry_out(plan)
        assert receipt.complete
        assert receipt.freed <= plan.frees_bytes
        gone = {item.name for item in plan.items}
        for (repo, revision), content in made.items():
            commit = commit_of(revision)
            if f"{repo}@{commit[:12]}" in gone:
                assert not (hub.repo(repo) / "snapshots" / commit).exists()
                continue
            found = Path(
                snapshot_download(repo, revision=commit, cache_dir=hub.hub, local_files_only=True)
            )
            assert {n: (found / n).read_bytes() for n in content} == content
        assert not clean_plan(hub.hub, force=force, **rule).actions
