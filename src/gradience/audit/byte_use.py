"""Where the bytes of an adapter are, by kind and by stored type. Pure."""

from collections import Counter
from collections.abc import Iterator

from gradience.adapter.records import Adapter
from gradience.audit.records import ByteUse
from gradience.tensors.stored import StoredTensor

_WIDER_THAN_BF16 = frozenset({"F64", "F32"})


def byte_use(adapter: Adapter, file_bytes: int) -> ByteUse:
    """Attribute every stored byte to one kind and one type.

    Parameters
    ----------
    adapter : Adapter
    file_bytes : int
        Size of the weights file; what is not tensor data is its header.
    """
    owned = list(stored_tensors(adapter))
    by_kind: Counter[str] = Counter()
    by_dtype: Counter[str] = Counter()
    for kind, tensor in owned:
        by_kind[kind] += tensor.nbytes
        by_dtype[tensor.dtype] += tensor.nbytes
    return ByteUse(
        file=file_bytes,
        tensors=by_kind.total(),
        by_kind=dict(by_kind.most_common()),
        by_dtype=dict(by_dtype.most_common()),
        as_bf16=sum(
            tensor.size * 2 if tensor.dtype in _WIDER_THAN_BF16 else tensor.nbytes
            for _, tensor in owned
        ),
    )


def stored_tensors(adapter: Adapter) -> Iterator[tuple[str, StoredTensor]]:
    """Every tensor of an adapter once, with its kind."""
    for layer in adapter.layers:
        for tensor in layer.tensors:
            if layer.magnitude is not None and tensor.name == layer.magnitude.name:
                yield "magnitude", tensor
            elif layer.bias is not None and tensor.name == layer.bias.name:
                yield "bias", tensor
            else:
                yield "factors", tensor
    for extra in adapter.extras:
        yield extra.kind, extra.tensor
    for tensor in adapter.unread:
        yield "unread", tensor
