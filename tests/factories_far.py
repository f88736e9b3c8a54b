"""A torch device that is not there: what lies on it is computed by the CPU, and lies nowhere else.

Without a GPU nothing shows that code for one has its tensors where they are needed: on the CPU each
lies beside every other. Here a tensor of the device is a wrapper that torch takes for one of an
accelerator: no operation takes it together with one of the host, numpy does not see it, what
crosses is counted, and the memory of the device ends.

To make one names a backend of torch, for good: only for a process of its own.
"""

import functools
import weakref
from collections import Counter
from collections.abc import Iterable, Mapping
from typing import Any

import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves, tree_map_only
from torch.utils.backend_registration import _setup_privateuseone_for_python_backend

FAR = "far:0"
aten = torch.ops.aten
_CROSSES = (aten.copy_.default, aten._to_copy.default)
_TAKES_INDICES_OF_THE_HOST = (aten.index.Tensor, aten.index_put_.default)


class FarTensor(torch.Tensor):
    """A tensor of the device; `near` has its numbers."""

    near: torch.Tensor

    @staticmethod
    def __new__(cls, near: torch.Tensor) -> "FarTensor":
        """Wrap a tensor of the host."""
        made = torch.Tensor._make_wrapper_subclass(
            cls,
            near.shape,
            strides=near.stride(),
            storage_offset=near.storage_offset(),
            dtype=near.dtype,
            device=FAR,
        )
        made.near = near
        return made

    @classmethod
    def __torch_dispatch__(cls, func: Any, *_: Any, **__: Any) -> Any:
        raise AssertionError(f"{func} met a far tensor where there is no far device")


class FarDevice(TorchDispatchMode):
    """While it is entered, `FAR` is a device.

    Attributes
    ----------
    memory : int
        Bytes that it has; what asks for more meets torch's own error.
    taken, most : int
        Bytes that are in use, and most that ever were.
    crossed : Counter of str
        Bytes that went `over` to it and came `back`.
    """

    def __init__(self, memory: int = 1 << 40) -> None:
        super().__init__()
        _name_the_backend()
        self.memory = memory
        self.taken = self.most = 0
        self.crossed: Counter[str] = Counter()
        self._holders: Counter[int] = Counter()

    def __enter__(self) -> "FarDevice":
        """Numbers of Python become a tensor of the host first, which then goes over in sight."""
        self._before = torch._C._only_lift_cpu_tensors()
        torch._C._set_only_lift_cpu_tensors(True)
        super().__enter__()
        return self

    def __exit__(self, *error: Any) -> None:
        """The device is gone."""
        torch._C._set_only_lift_cpu_tensors(self._before)
        super().__exit__(*error)

    def __torch_dispatch__(
        self,
        func: Any,
        types: Iterable[type],
        args: tuple[Any, ...] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:
        """Do on the CPU what has all its operands here or all of them there."""
        kwargs = dict(kwargs or {})
        operands = [leaf for leaf in tree_leaves((args, kwargs)) if isinstance(leaf, torch.Tensor)]
        far = [isinstance(operand, FarTensor) for operand in operands]
        asked = kwargs.get("device")
        there = any(far) if asked is None else torch.device(asked) == torch.device(FAR)
        if func in _CROSSES:
            self._count(operands, there=far[0] if func is aten.copy_.default else there)
        elif any(far) and func not in _TAKES_INDICES_OF_THE_HOST:
            beside = [o.shape for o, is_far in zip(operands, far, strict=True) if not is_far]
            if any(beside):  # a number, which has no shape, goes along
                raise RuntimeError(f"{func}: operands on {FAR} and on the host: {beside}")
        if asked is not None:
            kwargs["device"] = torch.device("cpu")
        near_args, near_kwargs = tree_map_only(FarTensor, lambda t: t.near, (args, kwargs))
        found = func(*near_args, **near_kwargs)
        return tree_map_only(torch.Tensor, self._hold, found) if there else found

    def _count(self, operands: list[torch.Tensor], *, there: bool) -> None:
        source = operands[-1]
        if isinstance(source, FarTensor) != there:
            self.crossed["over" if there else "back"] += source.nbytes

    def _hold(self, near: torch.Tensor) -> FarTensor:
        storage = near.untyped_storage()
        place, nbytes = storage.data_ptr(), storage.nbytes()
        if place not in self._holders:
            if self.taken + nbytes > self.memory:
                raise torch.OutOfMemoryError(f"{FAR}: {nbytes} bytes beside {self.taken}")
            self.taken += nbytes
            self.most = max(self.most, self.taken)
        self._holders[place] += 1
        made = FarTensor(near)
        weakref.finalize(made, self._free, place, nbytes)
        return made

    def _free(self, place: int, nbytes: int) -> None:
        self._holders[place] -= 1
        if not self._holders[place]:
            del self._holders[place]
            self.taken -= nbytes


@functools.cache
def _name_the_backend() -> None:
    _setup_privateuseone_for_python_backend(FAR.partition(":")[0])
