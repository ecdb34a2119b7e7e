"""A minibatch on its way from a worker: its tensors in a slot, the rest pickled as torch does it.

Whole structures are pickled, so whatever torch can send goes the same way: named tuples, classes of
the user's, two tensors over one storage. Only plain CPU tensors are taken out: large ones into the
slot, small ones into the pickle itself, so that labels one keeps do not hold a whole slot.
"""

from __future__ import annotations

import io
import pickle
import threading
import weakref
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from multiprocessing.reduction import ForkingPickler
from typing import Any

import torch
from torch.utils.data._utils.pin_memory import pin_memory

# Up to here a tensor's bytes are cheaper in the pipe than in a page of their own.
INLINE_BYTES = 16 << 10
INLINE_TOTAL = 256 << 10  # of one minibatch
# Who keeps a tensor keeps its slot. So one that is less than this part of it leaves it on arrival.
KEPT_APART = 8

# put(storage) -> where in the slot it lies now, or None.
Put = Callable[[torch.UntypedStorage], "int | None"]


class Packer(ForkingPickler):
    """Pickles what a worker prepared. `placed`: storages in the slot so far, by identity.

    Not by address: two storages over one array of NumPy's have the same, and are two for torch.
    """

    def __init__(self, file: io.BytesIO, put: Put, placed: Mapping[int, int]) -> None:
        super().__init__(file)
        self._put, self._placed = put, placed
        self._inline: dict[int, tuple[str, bytes]] = {}  # by identity; the memo keeps it taken
        self._room = INLINE_TOTAL
        self.as_torch = 0  # tensors left to torch

    def reducer_override(self, obj: Any) -> Any:
        if not isinstance(obj, torch.Tensor):
            return NotImplemented
        form = self._form_of(obj) if type(obj) is torch.Tensor and _is_plain(obj) else None
        if form is None:
            self.as_torch += 1
            return NotImplemented
        metadata = (obj.dtype, obj.storage_offset(), tuple(obj.size()), obj.stride())
        return form[0], (*form[1:], obj.untyped_storage().nbytes(), *metadata)

    def _form_of(self, tensor: torch.Tensor) -> tuple[Any, Any] | None:
        storage = tensor.untyped_storage()
        identity, size = identity_of(storage), storage.nbytes()
        if identity in self._placed:  # another tensor over it, as everything below
            return _in_slot, self._placed[identity]
        if identity in self._inline:  # pickle sends the bytes once
            return _inline, self._inline[identity]
        # A small view of something large: torch shares that once, we would copy it each time.
        if size == 0 or storage.data_ptr() == 0 or size > 2 * tensor.nbytes or storage.is_shared():
            return None
        if size <= min(INLINE_BYTES, self._room):
            self._room -= size
            self._inline[identity] = (str(len(self._inline)), _bytes_of(storage))
            return _inline, self._inline[identity]
        offset = self._put(storage)
        return None if offset is None else (_in_slot, offset)


def _is_plain(tensor: torch.Tensor) -> bool:
    return (
        tensor.layout is torch.strided
        and tensor.device.type == "cpu"
        and not tensor.requires_grad
        and not tensor.is_nested
        and not tensor.is_quantized
        and not tensor.is_conj()
        and not tensor.is_neg()
    )


def identity_of(storage: torch.UntypedStorage) -> int:
    """The same for all tensors over it, as long as one of them lives."""
    return int(storage._cdata)


def as_bytes(storage: torch.UntypedStorage) -> torch.Tensor:
    """A uint8 tensor over it."""
    return torch.empty(0, dtype=torch.uint8, device="cpu").set_(storage)  # type: ignore[call-overload, no-any-return]


def storage_over(memory: Any, size: int, offset: int = 0) -> torch.UntypedStorage:
    """A storage of `size` bytes of something writable, which lives as long as the storage."""
    flat = torch.frombuffer(memory, dtype=torch.uint8, count=size, offset=offset)
    return flat.untyped_storage()


def _bytes_of(storage: torch.UntypedStorage) -> bytes:
    return as_bytes(storage).numpy().tobytes()


# -- the consumer's side ---------------------------------------------------------------------------

_opened = threading.local()  # slot: its bytes; storages: made so far, by offset or inline number


def _in_slot(offset: int, size: int, *tensor: Any) -> torch.Tensor:
    storage = _opened.storages.get(offset)
    if storage is None:
        storage = storage_over(_opened.slot, size, offset)
        if size * KEPT_APART <= len(_opened.slot):
            storage = storage.clone()  # type: ignore[no-untyped-call]
        _opened.storages[offset] = storage
    return _tensor(storage, *tensor)


def _inline(sent: tuple[str, bytes], size: int, *tensor: Any) -> torch.Tensor:
    key, data = sent
    storage = _opened.storages.get(key)
    if storage is None:
        storage = _opened.storages[key] = storage_over(bytearray(data), size)
    return _tensor(storage, *tensor)


def _tensor(
    storage: torch.UntypedStorage, dtype: Any, start: int, size: Any, stride: Any
) -> torch.Tensor:
    empty: Any = torch.empty((0,), dtype=dtype, device="cpu")
    return empty.set_(storage, start, size, stride)  # type: ignore[no-any-return]


@dataclass
class Parcel:
    """What a worker puts on torch's result queue.

    Attributes:
        flight: which iterator's, see `flights`.
        task: torch's number of the minibatch in this epoch.
        slot: the slot's number, or -1 when nothing lies in it.
        size: bytes of the slot as the worker left it.
        pickled: the minibatch without what lies in the slot.
        as_torch: tensors that torch sends.
        why: why the slot could not be used, or empty.
    """

    flight: int
    task: int
    slot: int
    size: int
    pickled: bytes
    as_torch: int
    why: str

    def __reduce__(self) -> tuple[Any, ...]:  # a third of what pickle does by itself
        return Parcel, tuple(vars(self).values())

    def open(self) -> Any:
        """The minibatch. Its tensors keep the slot until the last of them has died."""
        flight = flights[self.flight]
        _opened.slot = flight.arrived(self)
        _opened.storages = {}
        try:
            return pickle.loads(self.pickled)
        finally:
            del _opened.slot, _opened.storages

    def pin_memory(self) -> Any:
        """What torch's pinning thread calls on whatever it does not know."""
        return pin_memory(self.open())  # type: ignore[no-untyped-call]


# Iterators whose workers are at work, by number: parcels are opened in any thread.
flights: weakref.WeakValueDictionary[int, Any] = weakref.WeakValueDictionary()
