"""Digests: equal content is equal, changed content is not."""

import os
import zipfile

import pytest
from blake3 import blake3

from factories_tensors import entry, safetensors_bytes
from gradience.errors import TensorFileError
from gradience.tensors import fingerprint
from gradience.tensors.fingerprint import content_digest
from gradience.tensors.regular import regular_file

MIB = 1 << 20


def sampled_digest(path):
    with regular_file(path) as (file, size):
        return fingerprint.sampled_digest(file, size)


@pytest.mark.parametrize("size", [0, 1, MIB - 1, MIB, 3 * MIB + 7])
def test_the_digest_of_one_file_is_its_blake3(tmp_path, size):
    data = os.urandom(size)
    (tmp_path / "a").write_bytes(data)
    assert content_digest([tmp_path / "a"]) == f"blake3:{blake3(data).hexdigest()}"


def test_the_digest_of_several_files_depends_on_where_each_ends_and_on_their_order(tmp_path):
    digests = set()
    for i, (one, two) in enumerate([(b"ab", b"c"), (b"a", b"bc"), (b"c", b"ab"), (b"", b"abc")]):
        (tmp_path / f"{i}a").write_bytes(one)
        (tmp_path / f"{i}b").write_bytes(two)
        digests.add(content_digest([tmp_path / f"{i}a", tmp_path / f"{i}b"]))
    (tmp_path / "joined").write_bytes(blake3(b"ab").digest() + blake3(b"c").digest())
    digests.add(content_digest([tmp_path / "joined"]))
    assert len(digests) == 5


def test_names_do_not_matter(tmp_path):
    for name in ("a", "b"):
        (tmp_path / name).write_bytes(b"same")
    assert content_digest([tmp_path / "a"]) == content_digest([tmp_path / "b"])
    assert sampled_digest(tmp_path / "a") == sampled_digest(tmp_path / "b")


def big_file(path, *, count=5, size=4 * MIB):
    header = {f"t{i}": entry("U8", (size,), (i * size, (i + 1) * size)) for i in range(count)}
    path.write_bytes(safetensors_bytes(header))
    os.truncate(path, path.stat().st_size + count * size)
    return path


def change(path, offset):
    with path.open("r+b") as file:
        file.seek(offset)
        old = file.read(1)
        file.seek(offset)
        file.write(bytes([old[0] ^ 1]))


def test_the_sampled_digest_sees_header_samples_end_and_size(tmp_path):
    path = big_file(tmp_path / "x")
    start = path.stat().st_size - 20 * MIB
    seen = {sampled_digest(path)}
    for offset in (8, start - 1, start, start + 8 * MIB + 4095, path.stat().st_size - 1):
        change(path, offset)
        seen.add(sampled_digest(path))
        change(path, offset)
    os.truncate(path, path.stat().st_size - 1)
    seen.add(sampled_digest(path))
    assert len(seen) == 7


def test_the_sampled_digest_sees_every_byte_of_a_small_file(tmp_path):
    path = tmp_path / "x"
    path.write_bytes(bytes(MIB))
    seen = {sampled_digest(path)}
    for offset in (0, 12_345, MIB // 2, MIB - 1):
        change(path, offset)
        seen.add(sampled_digest(path))
    assert len(seen) == 5


def test_the_sampled_digest_says_what_it_is(tmp_path):
    (tmp_path / "x").write_bytes(b"")
    assert sampled_digest(tmp_path / "x").startswith("blake3-sampled:")


def test_a_file_that_cannot_be_read_is_named(tmp_path):
    with pytest.raises(TensorFileError, match="gone does not exist"):
        content_digest([tmp_path / "gone"])
    with pytest.raises(TensorFileError, match="a directory"):
        content_digest([tmp_path])


def test_the_sampled_digest_sees_the_beginning_of_every_tensor(tmp_path):
    path = big_file(tmp_path / "x", count=20, size=MIB)
    start = path.stat().st_size - 20 * MIB
    seen = {sampled_digest(path)}
    for i in range(20):
        change(path, start + i * MIB + 100)
        seen.add(sampled_digest(path))
    assert len(seen) == 21


def test_the_sampled_digest_sees_every_entry_of_a_zip_archive(tmp_path):
    path, content, seen = tmp_path / "x", bytearray(os.urandom(20 * MIB)), set()
    for i in range(21):
        with zipfile.ZipFile(path, "w") as archive:
            for k in range(20):
                archive.writestr(zipfile.ZipInfo(f"data/{k}" + "x" * 300), content[k * MIB :][:MIB])
        seen.add(sampled_digest(path))
        content[min(i, 19) * MIB + MIB // 2] ^= 1
    assert len(seen) == 21


@pytest.mark.parametrize("header", [b"{", b"[1]", b'{"t": 3, "u": {"data_offsets": ["a"]}}'])
def test_a_damaged_header_still_has_a_digest(tmp_path, header):
    path = tmp_path / "x"
    path.write_bytes(len(header).to_bytes(8, "little") + header + bytes(5 * MIB))
    assert sampled_digest(path).startswith("blake3-sampled:")
