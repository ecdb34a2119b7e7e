"""Native core of coordl: fetch, prep and staging."""

from collections.abc import Sequence
import os
from typing import Annotated, Any

import numpy
from numpy.typing import NDArray


class Arena:
    """
    A never-evict shared-memory cache of this user; see docs/shared-memory.md.

    Any thread and any forked child may use it.
    """

    @staticmethod
    def open(name: str, budget_bytes: int, expected_items: int, persist: bool = False, raise_budget: bool = True, kept_in: str | None = None) -> Arena:
        """
        Opens or creates: in shared memory, or on the disk of the directory `kept_in`,
        where it stays. Raises OSError with the kernel's errno.
        """

    def find(self, hi: int, lo: int) -> memoryview | None:
        """
        The item as a read-only memoryview, or None. No copy; valid as long as it lives.
        """

    def admit(self, hi: int, lo: int, data: bytes | bytearray | memoryview) -> bool:
        """
        Copies the item in. False when it does not fit; True when it is held now.
        """

    def stats(self) -> dict[str, int]: ...

    def verify(self) -> list[str]:
        """One line per fault; empty when every item is as it was admitted."""

    def ensure_lease(self) -> bool:
        """
        Takes this process's lease now. False when the arena was cleared meanwhile.
        """

    def close(self) -> None: ...

    @property
    def name(self) -> str: ...

def list_arenas(kept_in: str | None = None) -> list[dict[str, Any]]:
    """
    Arenas of this user that live or persist in shared memory, or on the disk of a directory:
    Arena.stats() of each, with name and readable.
    """

def verify_arena(name: str, kept_in: str | None = None) -> tuple[int, int, list[str]]:
    """
    (items, bytes, faults) of an arena, re-checked from outside. OSError ENOENT when there is
    none, EPROTO when it is another version's or damaged.
    """

def reap_arenas() -> list[str]:
    """
    Unlinks this user's arenas in shared memory that no live user has and that do not persist;
    their names.
    """

def numa_nodes() -> int:
    """NUMA nodes online."""

def clear_arena(name: str, force: bool = False, kept_in: str | None = None) -> None:
    """
    Unlinks an arena. OSError EBUSY when in use and not force, ENOENT when there is none.
    """

def arena_directory() -> str: ...

def memory_limits() -> dict[str, Any]:
    """
    Bytes by limit (None: unlimited), and what an arena may take now (allowed_bytes, limit).
    """

class Tiers:
    """Shared memory, then perhaps a disk; and which items they take."""

    def __init__(self, memory: Arena | None, disk: Arena | None = None) -> None: ...

    def find(self, hi: int, lo: int) -> memoryview | None:
        """
        The item as a read-only memoryview, or None. No copy; valid as long as it lives.
        """

    def seems_on_disk(self, hi: int, lo: int) -> bool:
        """Whether find() most likely reads it from the disk."""

    def seems_held(self, hi: int, lo: int) -> bool:
        """Whether find() most likely finds it, without reading a disk."""

    def takes(self, hi: int, lo: int, bytes: int) -> bool:
        """Whether it is chosen and there is room."""

    def admit(self, hi: int, lo: int, data: bytes | bytearray | memoryview) -> bool:
        """
        Copies the item in. False when it is not chosen or does not fit; True when held now.
        """

    def choose(self, seed: int, limit: int) -> None:
        """
        Only items whose admission number is at most `limit` are admitted from now on.
        """

def admission_numbers(seed: int, keys: numpy.ndarray) -> numpy.ndarray:
    """
    (N,) uint64 for (N, 2) keys: random numbers that are a function of seed and key.
    """

def stat_files(paths: Sequence[str], threads: int = 1) -> tuple[numpy.ndarray, numpy.ndarray, numpy.ndarray]:
    """
    (sizes, mtimes_ns, errnos): (N,) int64, int64, int32. EISDIR, EINVAL: no plain file.
    """

def read_file(path: str | bytes | os.PathLike) -> bytes:
    """The whole file. OSError; EOFError when it changed while it was read."""

def read_identified(path: str | bytes | os.PathLike) -> tuple[bytes, int, int]:
    """(bytes, size, mtime_ns) of the whole file. Raises as read_file does."""

def read_part(path: str | bytes | os.PathLike, offset: int, length: int) -> tuple[bytes, int, int]:
    """
    (bytes, size, mtime_ns): part of a file, with the file's size and time. Raises as
    read_file does; EOFError also where the file ends before the part.
    """

def drop_from_page_cache(path: str | bytes | os.PathLike, offset: int = 0, length: int = 0) -> None:
    """Advises the kernel to drop the file's clean pages, or those of a part."""

def image_size(item: object) -> tuple[int, int] | None:
    """
    (width, height) of an item the native pass takes, from its header; else None.
    """

def formats() -> list[str]:
    """
    Formats this build decodes: 'jpeg', and 'png' and 'webp' where their libraries were found.
    """

def decode_region(item: object, x: int, y: int, out: Annotated[NDArray[numpy.uint8], dict(shape=(None, None, 3), order='C', device='cpu')]) -> bool:
    """
    Decodes the region at (x, y) of out's size into out, (height, width, 3) uint8; the pixels
    of a full decode. False when the item is not one for the native pass.
    """

def form(item: object) -> str:
    """'original', 'indexed' or 'packed', by the first bytes."""

def recode(item: bytes | bytearray | memoryview, form: str, keep_header: bool = False) -> bytes | None:
    """
    A JPEG as an 'indexed' or 'packed' item of the same pixels; None where it has no such form.
    keep_header: with the JPEG's own header, for unpacking. Releases the GIL.
    """

def choose_mix(*, bytes: float, budget: float, prep_s: Sequence[float], growth: Sequence[float], storage_rate: float) -> tuple[str, float]:
    """
    (form of the rest, share of packed items) that makes epochs shortest; prep_s in seconds a
    byte of the files; native/prep/forms.hpp.
    """

def prepare_box(item: object, pass_: Pass, x: int, y: int, width: int, height: int, flip: bool, out: Annotated[NDArray, dict(order='C', device='cpu')]) -> bool:
    """Like prepare() with a crop of the caller's, in pixels of the image."""

class Pass:
    """What happens to the pixels of every sample of one data set."""

    def __init__(self, *, geometry: str, out_height: int, out_width: int, resize_shorter: int = 256, scale: Sequence[float] = [0.08, 1.0], ratio: Sequence[float] = [0.75, 1.3333333333333333], filter: str = 'bilinear', padding: Sequence[int] = [0, 0, 0, 0], pad_if_needed: bool = False, pad_mode: str = 'constant', fill: Sequence[int] = [0, 0, 0], flip_probability: float = 0.0, vertical_flip_probability: float = 0.0, colours: Sequence[tuple[str, float, Sequence[Sequence[float] | None]]] = [], erase_probability: float = 0.0, erase_scale: Sequence[float] = [0.02, 0.33], erase_ratio: Sequence[float] = [0.3, 3.3], erase_value: Sequence[float] = [0.0, 0.0, 0.0], layout: str = 'chw', pixel: str = 'float32', pixel_scale: Sequence[float] = ..., pixel_bias: Sequence[float] = [0.0, 0.0, 0.0]) -> None:
        """
        geometry: random_resized_crop, resize_center_crop, resize, center_crop, random_crop or
        resize_random_crop.
        scale, ratio: of random_resized_crop. filter: bilinear, bicubic or nearest. padding
        (left, top, right, bottom), pad_if_needed, pad_mode, fill: of random crops.
        colours: ('jitter', 1, (brightness, contrast, saturation)), each (low, high) or None;
        ('grey', probability, (None, None, None)). erase_value: as it stands in the output.
        layout: 'chw' or 'hwc'. pixel: 'uint8', or level * pixel_scale[c] + pixel_bias[c] as
        'float32', 'float16' or 'bfloat16'. Raises ValueError.
        """

    @property
    def sample_bytes(self) -> int: ...

def choose_draw(pass_: Pass, width: int, height: int, seed: int, epoch: int, index: int) -> tuple[int, int, int, int, bool, bool, tuple[tuple[str, float], ...], tuple[int, int, int, int]]:
    """
    (x, y, width, height, flip, vertical_flip, colour ops, erased (x, y, width, height)) of a
    sample on an image of that size; of resize_random_crop in pixels of the resized image.
    """

def apply_colours(levels: Annotated[NDArray[numpy.uint8], dict(shape=(3, None, None), order='C', device='cpu')], ops: Sequence[tuple[str, float]]) -> None:
    """
    Does (name, factor) of brightness, contrast, saturation, grey to (3, H, W) levels in place.
    """

def resize_exact(pixels: Annotated[NDArray[numpy.uint8], dict(shape=(None, None, 3), order='C', device='cpu', writable=False)], filter: str, out: Annotated[NDArray[numpy.uint8], dict(shape=(3, None, None), order='C', device='cpu')]) -> None:
    """
    Pillow's 'bicubic' or 'nearest' resize of (H, W, 3) pixels to (3, height, width) levels.
    """

def to_float16(value: float) -> int:
    """Bits of the nearest half, ties to even."""

def to_bfloat16(value: float) -> int:
    """Bits of the nearest bfloat16, ties to even."""

def prepare(item: object, pass_: Pass, seed: int, epoch: int, index: int, out: Annotated[NDArray, dict(order='C', device='cpu')]) -> bool:
    """
    Encoded bytes -> pixels in `out`, (3, height, width) of the pass's pixel type, or (height,
    width, 3) where its layout is hwc.
    False when the item is not one for the native pass; `out` is then unspecified.
    Releases the GIL.
    """

def philox(counter: Sequence[int], key: Sequence[int]) -> list[int]:
    """Philox4x64-10: four 64-bit words that depend on counter and key only."""

def simd() -> str:
    """
    Name of the kernels in use: scalar, avx2, avx512 or neon; COORDL_SIMD chooses one.
    """

class Ring:
    """
    The staging ring of a group; see docs/shared-memory.md. Any thread and any forked
    child may use it.
    """

    @staticmethod
    def open(name: str, sample_bytes: int, epoch_samples: int, run_samples: int, bytes: int, record: str) -> Ring:
        """
        Makes it so, or takes what is there. Raises OSError with the kernel's errno.
        """

    @property
    def record(self) -> str: ...

    @property
    def sample_bytes(self) -> int: ...

    @property
    def epoch_samples(self) -> int: ...

    @property
    def run_samples(self) -> int: ...

    @property
    def slots(self) -> int: ...

    @property
    def slot_bytes(self) -> int: ...

    def ensure_lease(self) -> bool:
        """
        Takes this process's lease now. False when the ring was cleared meanwhile.
        """

    def agree(self, epoch: int, digest: int) -> bool:
        """
        False when another member said that the epoch's order has another digest.
        """

    def info(self) -> dict[str, Any]: ...

    def look(self, run: int) -> tuple[str, int]:
        """('staged' | 'mine' | 'others' | 'open' | 'gone', who is waited for)"""

    def claim(self, run: int) -> bool:
        """Makes an open run, or a dead member's, this process's to prepare."""

    def release(self, run: int) -> None:
        """Gives a claim up."""

    def put(self, run: int, record: bytes) -> bool:
        """
        Publishes a run of ours that is one record. False when that is too large: then it is
        noted that it is not there.
        """

    def take(self, run: int) -> bytes | None:
        """
        The record; empty when it is not there, None when the run is not staged.
        """

    def bell(self) -> int: ...

    def listen(self, run: int) -> None:
        """Has the bell rung when the run's slot changes."""

    def wait(self, seen: int, most_ms: int) -> None:
        """Until the bell rang since bell() said `seen`, or that long."""

    def beat_of(self, member: int) -> int: ...

    def count_pass(self, change: int) -> None: ...

    def cores(self) -> int:
        """Cores that live processes in a pass may run on, together."""

    def active(self, passes: int) -> int:
        """Live processes that are in so many passes or more."""

    def at(self, run: int) -> None: ...

    def count(self, prepared: int, alone: int, staged: int) -> None: ...

    def close(self) -> None: ...

class Portion:
    """One minibatch on its way through a ring."""

    def __len__(self) -> int: ...

    def memory(self) -> Buffer:
        """Where its samples are; None where put() was given a buffer."""

    def exceptions(self) -> list[tuple[int, str, int]]:
        """(row, what, errno) of rows that are not done."""

    def item(self, row: int) -> bytes:
        """Encoded bytes of a row that is not ours."""

class Feed:
    """One pass over a ring; see native/staging/feed.hpp."""

    def __init__(self, ring: Ring, workers: Workers, items: Annotated[NDArray[numpy.int64], dict(shape=(None,), order='C', device='cpu', writable=False)], indices: Annotated[NDArray[numpy.int64], dict(shape=(None,), order='C', device='cpu', writable=False)], seed: int, epoch: int, prep_threads: int, cores: int, patience_s: float, pool: BufferPool | None = None) -> None: ...

    def put(self, first: int, count: int, buffer: Buffer | None = None) -> Portion:
        """
        Samples [first, first + count) of the epoch's order, into the buffer or, without one,
        where Portion.memory() says once they are there.
        """

    def wait(self, portion: Portion, timeout_s: float = 0.0) -> bool:
        """True when all of it is there; False after timeout_s (0: never)."""

    def counts(self) -> dict[str, int]: ...

    def close(self) -> None: ...

def list_rings() -> list[dict[str, Any]]:
    """Staging rings of this user that live: Ring.info() of each."""

def reap_rings() -> list[str]:
    """Unlinks this user's staging rings that no live user has; their names."""

def clear_ring(name: str, force: bool = False) -> None:
    """
    Unlinks a ring. OSError EBUSY when in use and not force, ENOENT when there is none.
    """

def checksum(data: bytes | bytearray | memoryview, hi: int = 0, lo: int = 0) -> int:
    """
    64 bits that find torn, misplaced and flipped bytes; (hi, lo) says where they belong.
    """

def check_item(item: bytes | bytearray | memoryview) -> bool:
    """
    Whether an item of ours from outside may be decoded. True for originals: their decoders check.
    """

def unpack(item: bytes | bytearray | memoryview) -> bytes | None:
    """
    A packed or indexed item as a JPEG of the same coefficients, tables and segments; None when
    it is damaged or none of ours. Releases the GIL.
    """

def can_unpack(item: bytes | bytearray | memoryview) -> bool:
    """
    Whether unpack() makes a JPEG of it. False for the few whose coefficients no encoder makes.
    """

def jpeg_header(item: bytes | bytearray | memoryview) -> bytes:
    """
    The JPEG's own header that a packed or indexed item carries; empty without one.
    """

class SharedMapping:
    """
    Memory that processes share by a descriptor; not given to forked
    children unless inherit(True) says so.
    """

    def __init__(self, fd: int, bytes: int) -> None:
        """Maps the file's first bytes. Raises OSError."""

    def __len__(self) -> int: ...

    def array(self) -> Annotated[NDArray[numpy.uint8], dict(shape=(None,))]:
        """A new writable uint8 array over it, which keeps it alive."""

    def populate(self) -> bool:
        """
        Has the kernel provide all pages now. False where it cannot be asked; raises OSError
        where there is no memory.
        """

    def inherit(self, wanted: bool) -> None:
        """Whether children forked from now on see it."""

class ItemTable:
    """Paths and identities of a data set's items; immutable."""

    def __init__(self, paths: list, sizes: Annotated[NDArray[numpy.int64], dict(shape=(None,), order='C', device='cpu', writable=False)], mtimes_ns: Annotated[NDArray[numpy.int64], dict(shape=(None,), order='C', device='cpu', writable=False)], keys: Annotated[NDArray[numpy.uint64], dict(shape=(None, 2), order='C', device='cpu', writable=False)]) -> None: ...

    @staticmethod
    def of_parts(paths: list, sizes: Annotated[NDArray[numpy.int64], dict(shape=(None,), order='C', device='cpu', writable=False)], mtimes_ns: Annotated[NDArray[numpy.int64], dict(shape=(None,), order='C', device='cpu', writable=False)], shards: Annotated[NDArray[numpy.uint32], dict(shape=(None,), order='C', device='cpu', writable=False)], offsets: Annotated[NDArray[numpy.uint64], dict(shape=(None,), order='C', device='cpu', writable=False)], lengths: Annotated[NDArray[numpy.uint64], dict(shape=(None,), order='C', device='cpu', writable=False)], checksums: Annotated[NDArray[numpy.uint64], dict(shape=(None,), order='C', device='cpu', writable=False)] | None, keys: Annotated[NDArray[numpy.uint64], dict(shape=(None, 2), order='C', device='cpu', writable=False)]) -> ItemTable:
        """
        Items that are parts of shards: paths, sizes and times of the S shards; shard,
        offset, length, checksum and key of the N items. Without checksums the shards are a
        user's: their bytes hold while a shard has its size and time.
        """

    def __len__(self) -> int: ...

class Buffer:
    """Memory of one minibatch."""

    def __init__(self, address: int, bytes: int, owner: object) -> None:
        """Over memory of another, which it keeps alive."""

    def array(self, shape: Sequence[int], dtype: str) -> NDArray:
        """
        A writable numpy array over the buffer, which it keeps alive. dtype: float32, uint8,
        float16 or bfloat16 (an array of its bits, uint16).
        """

class BufferPool:
    """Recycles the memory of minibatches."""

    def __init__(self, max_free: int) -> None: ...

    def take(self, bytes: int) -> Buffer: ...

    @property
    def free_buffers(self) -> int: ...

class Ticket:
    """One minibatch on its way."""

    def __len__(self) -> int: ...

    @property
    def missing(self) -> list[int]:
        """Rows whose item was not in the cache when the ticket was made."""

    def exceptions(self) -> list[tuple[int, str, int]]:
        """(row, what, errno) of rows that are not done."""

    def item(self, row: int) -> bytes:
        """Encoded bytes of a row that is not ours."""

class Workers:
    """Fetch and prep threads; see native/prep/workers.hpp."""

    def __init__(self, items: ItemTable, pass_: Pass, cache: Tiers | None, prep_threads: int, fetch_threads: int, read_ahead_bytes: int, form: str = 'auto', servers: int = 1, handover_bytes: int = 0) -> None: ...

    def ticket(self, items: Annotated[NDArray[numpy.int64], dict(shape=(None,), order='C', device='cpu', writable=False)], indices: Annotated[NDArray[numpy.int64], dict(shape=(None,), order='C', device='cpu', writable=False)], seed: int, epoch: int) -> Ticket: ...

    def announce(self, ticket: Ticket, asked: Annotated[NDArray[numpy.int64], dict(shape=(None,), order='C', device='cpu', writable=False)] | None = None) -> None:
        """
        Reads ahead what it lacks; in the order in which tickets are submitted. `asked`: rows
        another server is asked for, which provide() or read() must end.
        """

    def provide(self, ticket: Ticket, row: int, data: bytes | bytearray | memoryview, checksum: int) -> bool:
        """
        What another server gave for an asked row. False when it is not the row's item.
        """

    def read(self, ticket: Ticket, rows: Annotated[NDArray[numpy.int64], dict(shape=(None,), order='C', device='cpu', writable=False)], keeper: str) -> None:
        """
        Reads asked rows from storage, for the cache 'here', for their 'owner' or for 'nobody'.
        """

    def handed_over(self, timeout_s: float = 0.0) -> list[tuple[int, int, bytes]]:
        """
        (high, low, bytes) of items read for their owners; waits for the first up to timeout_s.
        """

    def submit(self, ticket: Ticket, buffer: Buffer) -> None: ...

    def wait(self, ticket: Ticket, timeout_s: float = 0.0) -> bool:
        """True when every row ended; False after timeout_s (0: never)."""

    def close(self) -> None: ...

    def counters(self) -> dict: ...
