"""Ranges of a file in a store that fsspec knows: the right bytes, or an error."""

from collections.abc import Iterator
from threading import Event

import pytest
from fsspec.implementations.memory import MemoryFileSystem

from gradience.errors import MissingExtraError, RefusedError, TransferError
from gradience.tensors.remote.filesystem import FilesystemFile, filesystem

DATA = bytes(range(256)) * 200_000  # four pieces


class Weak(MemoryFileSystem):
    """A store that fails before it serves, as often as it is told to, or serves too little."""

    cachable = False
    failures = 0
    short = 0
    error: type[Exception] = OSError

    def cat_file(
        self, path: str, start: int | None = None, end: int | None = None, **options: object
    ) -> bytes:
        if self.failures:
            self.failures -= 1
            raise self.error("the bucket is tired")
        data: bytes = super().cat_file(path, start=start, end=end)
        return data[: len(data) - self.short]


@pytest.fixture
def store() -> Iterator[Weak]:
    made = Weak()
    made.pipe_file("/b/m", DATA)
    yield made
    made.rm("/b", recursive=True)


def read(store: Weak, begin: int, end: int) -> bytes:
    file = FilesystemFile(fs=store, path="/b/m", name="weak://b/m", pauses=(0.0, 0.0))
    buffer = bytearray(end - begin)
    file.read_into(begin, memoryview(buffer), told=lambda nbytes: None, stop=Event())
    return bytes(buffer)


def test_any_range_is_that_of_the_file(store: Weak) -> None:
    for begin, end in ((0, 1), (5, 300), (100, len(DATA)), (len(DATA) - 1, len(DATA))):
        assert read(store, begin, end) == DATA[begin:end]


def test_a_failure_that_passes_is_waited_for(store: Weak) -> None:
    store.failures = 2
    assert read(store, 7, len(DATA)) == DATA[7:]


@pytest.mark.parametrize("error", [OSError, RuntimeError, TimeoutError])
def test_a_failure_that_stays_is_said_with_its_reason(store: Weak, error: type[Exception]) -> None:
    store.failures, store.error = 100, error
    with pytest.raises(TransferError, match=r"weak://b/m: its store failed .*tired"):
        read(store, 0, 10)


def test_a_store_that_serves_too_little_is_an_error(store: Weak) -> None:
    store.short = 3
    with pytest.raises(TransferError, match="gives 7 bytes where 10 were asked for"):
        read(store, 0, 10)


@pytest.mark.parametrize(
    ("error", "expected", "message"),
    [
        (FileNotFoundError, RefusedError, "is not there"),
        (PermissionError, RefusedError, "may not be read with this login"),
        (ImportError, MissingExtraError, "tired"),
    ],
)
def test_a_refusal_is_not_asked_again(
    store: Weak, error: type[Exception], expected: type[Exception], message: str
) -> None:
    store.failures, store.error = 100, error
    with pytest.raises(expected, match=message):
        read(store, 0, 10)
    assert store.failures == 99


def test_the_end_of_a_tensor_finds_a_file_that_changed(store: Weak) -> None:
    file = FilesystemFile(fs=store, path="/b/m", name="m")
    file.head(10)
    store.pipe_file("/b/m", DATA[:-1])
    with pytest.raises(TransferError, match=f"it has {len(DATA) - 1} bytes where it had"):
        file.read_into(0, memoryview(bytearray(10)), told=lambda nbytes: None, stop=Event())


def test_a_reader_that_gives_up_ends_the_transfer(store: Weak) -> None:
    file = FilesystemFile(fs=store, path="/b/m", name="m")
    stop = Event()
    buffer = memoryview(bytearray(len(DATA)))
    with pytest.raises(TransferError, match="was stopped"):
        file.read_into(0, buffer, told=lambda nbytes: stop.set(), stop=stop)


def test_a_protocol_that_nobody_knows_is_said() -> None:
    with pytest.raises(TransferError, match="nosuch"):
        filesystem("nosuch://a/b", "nosuch://a/b")
