"""A remote safetensors file: its header read and checked, its tensors fetched when asked.

The header is held against the format and against the size of the file as a local one is, but for
the safetensors library's second opinion, which needs the whole file.
"""

from threading import Event

import msgspec
from blake3 import blake3

from gradience.tensors.dtypes import numpy_dtype
from gradience.tensors.header import Entry, Header, parse_header
from gradience.tensors.remote.lookahead import LookAhead, Span
from gradience.tensors.remote.range_file import RangeFile
from gradience.tensors.safetensors_file import LENGTH_BYTES, header_length, readable, view
from gradience.tensors.stored import Array, StoredTensor

# Most headers fit into the first request; those of many small tensors need a second.
_FIRST = 1 << 17
_SAMPLES = 32
_SAMPLE_BYTES = 1 << 12


class RemoteSafetensors(msgspec.Struct, frozen=True, kw_only=True):
    """What the header of a remote file says.

    Attributes
    ----------
    file : RangeFile
    header : Header
    data_start : int
        Offset of the first tensor's data.
    digest : str
        `blake3:...` of the header.
    """

    file: RangeFile
    header: Header
    data_start: int
    digest: str

    def tensors(self, ahead: LookAhead) -> dict[str, StoredTensor]:
        """Every tensor, fetched through `ahead` when it is read."""
        return {entry.name: self._stored(entry, ahead) for entry in self.header.entries}

    def spans(self) -> dict[str, Span]:
        """Where each tensor lies."""
        return {entry.name: self._span(entry) for entry in self.header.entries}

    def samples(self) -> str:
        """`blake3-sampled:...` of blocks where tensors begin, for a server that names no version.

        Up to 32 blocks of 4 KiB, evenly among the tensors and with the last: a model that was
        trained further or replaced is seen, an edit of a few numbers need not be.
        """
        filled = [entry for entry in self.header.entries if entry.end > entry.begin]
        step = max(1, -(-len(filled) // _SAMPLES))
        chosen = {*filled[::step], *filled[-1:]}
        hasher = blake3()
        for entry in sorted(chosen, key=lambda entry: entry.begin):
            block = bytearray(min(_SAMPLE_BYTES, entry.end - entry.begin))
            self.file.read_into(
                self.data_start + entry.begin, memoryview(block), told=_nobody, stop=Event()
            )
            hasher.update(block)
        return f"blake3-sampled:{hasher.hexdigest()}"

    def _span(self, entry: Entry) -> Span:
        return Span(
            file=self.file, begin=self.data_start + entry.begin, end=self.data_start + entry.end
        )

    def _stored(self, entry: Entry, ahead: LookAhead) -> StoredTensor:
        span = self._span(entry)
        taken: set[Span] = set()

        def read() -> Array:
            readable(self.file.name, entry)
            taken.add(span)
            return view(ahead.get(span).data, 0, entry)

        def read_at(index: int) -> Array:
            one = entry_span(span, entry.shape, index)
            readable(self.file.name, entry)
            taken.add(one)
            dtype = numpy_dtype(entry.dtype)
            return ahead.get(one).view(dtype).reshape(entry.shape[1:])

        def release() -> None:
            while taken:
                ahead.release(taken.pop())

        return StoredTensor(
            name=entry.name,
            dtype=entry.dtype,
            shape=entry.shape,
            nbytes=span.nbytes,
            read=read,
            read_at=read_at,
            release=release,
        )


def entry_span(span: Span, shape: tuple[int, ...], index: int) -> Span:
    """Where one entry along the first dimension of a tensor lies."""
    nbytes = span.nbytes // shape[0]
    return Span(
        file=span.file, begin=span.begin + index * nbytes, end=span.begin + (index + 1) * nbytes
    )


def open_remote_safetensors(file: RangeFile) -> RemoteSafetensors:
    """Read the header of a remote file.

    Raises
    ------
    TransferError
        If its bytes cannot be had.
    TensorFileError
        If it is no safetensors file, or its header contradicts itself, the format or the size.
    """
    head = file.head(_FIRST)
    length = header_length(file.name, head, file.size)
    header = bytearray(length)
    known = head[LENGTH_BYTES : LENGTH_BYTES + length]
    header[: len(known)] = known
    if len(known) < length:
        rest = memoryview(header)[len(known) :]
        file.read_into(LENGTH_BYTES + len(known), rest, told=_nobody, stop=Event())
    data_start = LENGTH_BYTES + length
    parsed = parse_header(file.name, bytes(header), data_nbytes=file.size - data_start)
    return RemoteSafetensors(
        file=file,
        header=parsed,
        data_start=data_start,
        digest=f"blake3:{blake3(header).hexdigest()}",
    )


def _nobody(nbytes: int) -> None:
    """Nobody is told of a header's bytes."""
