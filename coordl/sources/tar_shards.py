"""Tar shards in WebDataset's layout, as a map-style data set: any sample by its number.

train-00000.tar: 000017.jpg 000017.cls 000018.jpg 000018.cls ...
"""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch.utils.data
from numpy.typing import NDArray

from coordl.errors import TarShardError, item_error
from coordl.fetch.item import Items, Parts, identify_parts
from coordl.fetch.storage import fetch
from coordl.sources.fields import decode_field, is_number
from coordl.sources.image_folder import IMAGE_EXTENSIONS, open_item
from coordl.sources.patterns import expand
from coordl.sources.tar_headers import VALUE_BYTES
from coordl.sources.tar_index import TarSamples, default_folder, index_shards

KEY = "__key__"  # as a target: the sample's key
_IMAGES = tuple(end.removeprefix(".") for end in IMAGE_EXTENSIONS)

Read = Callable[[int], bytes | memoryview]


class TarShards(torch.utils.data.Dataset):
    """Pictures, and what belongs to them, in tar files of WebDataset's layout.

    Members that follow one another and share a name up to its first "." are a sample; what comes
    after that "." is a field. An index of where they lie is made from the tars' headers, once, and
    kept; samples are then read by their bytes' range. coordl.DataLoader prepares the pictures
    natively; in a stock DataLoader it works as ImageFolder does.

    Args:
        shards: "train-{00000..00099}.tar", "train-*.tar", a path, or a list of those.
        transform: from PIL image (RGB) to what the model takes.
        target: field that is the target, or several for a tuple of them; "__key__" is the sample's
            key. Decoded by extension: cls, index, id and the like to int, txt to str, json, npy to
            an array; anything else stays bytes.
        target_transform: from that to the target.
        image: fields that may be the picture; of those a sample has, the first is.
        index_folder: where the index of each tar is kept; by default in the user's cache
            ($XDG_CACHE_HOME/coordl or ~/.cache/coordl). One whose tar has another size or time
            by now is made anew.

    Raises:
        FileNotFoundError: a pattern names no file.
        TarShardError: a tar is damaged, cut short or compressed, holds sparse files or links, or
            samples lack a picture or target; names the tar, and offset or sample.
        ValueError: a bad pattern, or a number that is none.

    Attributes:
        shards: paths of the tars.
        index: where samples and members lie.
        read_fields: of the targets, those that are read with each sample. The others are small
            enough (64 bytes at most in every sample) to be held in the index.
    """

    def __init__(
        self,
        shards: str | os.PathLike[str] | Sequence[str | os.PathLike[str]],
        transform: Callable[[Any], Any] | None = None,
        target: str | Sequence[str] = "cls",
        target_transform: Callable[[Any], Any] | None = None,
        *,
        image: str | Sequence[str] = _IMAGES,
        index_folder: str | os.PathLike[str] | None = None,
    ) -> None:
        self.shards = expand(shards)
        self.transform = transform
        self.target = target if isinstance(target, str) else tuple(target)
        self.target_transform = target_transform
        self.image = (image,) if isinstance(image, str) else tuple(image)
        folder = default_folder() if index_folder is None else os.fspath(index_folder)
        self.index = TarSamples(index_shards(self.shards, folder))
        self.pictures = self._members(*self.image)
        names = (self.target,) if isinstance(self.target, str) else self.target
        self._columns = {name: self._members(name) for name in names if name != KEY}
        lengths = self.index.lengths
        self.read_fields = tuple(
            name
            for name, members in self._columns.items()
            if (lengths[members] > VALUE_BYTES).any()
        )
        self._numbers = {
            name: self._decode_all(name)
            for name in self._columns
            if is_number(name) and name not in self.read_fields
        }
        self._items: Items | None = None

    def _members(self, *fields: str) -> NDArray[np.int64]:
        """(N,): of each sample the member that is the first of these fields it has."""
        found = np.full(len(self.index), -1, np.int64)
        for field in reversed(fields):
            members = self.index.members(field)
            found = np.where(members >= 0, members, found)
        without = np.flatnonzero(found < 0)
        if without.size:
            first = int(without[0])
            raise TarShardError(
                f"{without.size:,} of {len(self):,} samples have no field {' or '.join(fields)}. "
                f"The first is {self._place(first)}, which has "
                f"{', '.join(self.index.fields_of(first))}. Name another field (target=, image=); "
                "where members of a sample do not follow one another, make the tar anew with "
                "sorted names (tar --sort=name)."
            )
        return found

    def _decode_all(self, field: str) -> NDArray[np.int64]:
        """A small column of numbers, which would cost too much to decode sample by sample."""
        numbers = np.empty(len(self), np.int64)
        for row, member in enumerate(self._columns[field].tolist()):
            data = self.index.value(member)
            try:
                numbers[row] = decode_field(field, data)
            except (ValueError, OverflowError):
                raise ValueError(
                    f"the field {field} of {self._place(row)} is no number of 64 bits: {data!r}"
                ) from None
        return numbers

    def _place(self, row: int) -> str:
        return f"{self.index.key(row)!r} in {self.shards[self.index.shards[row]]}"

    def __len__(self) -> int:
        return len(self.index)

    def __getitem__(self, index: int) -> tuple[Any, Any]:
        """(picture, target), transformed. Errors name index, shard and sample."""
        row = range(len(self))[index]  # negative ones count from the end
        if self._items is None:
            self._items = self.items(keyed=False)
        items = self._items
        try:
            picture = open_item(fetch(items, row))
            target = self.target_of(row, lambda item: fetch(items, item))
        except Exception as error:
            raise item_error(error, row, self.name(row)) from error
        if self.transform is not None:
            picture = self.transform(picture)
        return picture, target if self.target_transform is None else self.target_transform(target)

    def name(self, row: int) -> str:
        """What to call a sample: its shard, then the picture's name in it."""
        field = self.index.field(self.pictures[row])
        return f"{self.shards[self.index.shards[row]]}/{self.index.key(row)}.{field}"

    def items(self, keyed: bool) -> Items:
        """The pictures, then column by column the targets that are read; as the tars were when they
        were indexed: one that is another by now fails when its turn comes."""
        index = self.index
        columns = [self.pictures, *(self._columns[name] for name in self.read_fields)]
        members = np.concatenate(columns)
        parts = Parts(
            names=(),
            shards=np.tile(index.shards, len(columns)),
            offsets=index.offsets[members],
            lengths=index.lengths[members],
            checksums=None,
            paths=index.paths,
            sizes=index.sizes,
            mtimes_ns=index.mtimes_ns,
        )
        return identify_parts(parts, keyed=keyed, fields=len(columns))

    def target_of(self, row: int, read: Read | None = None) -> Any:
        """Before target_transform. `read` gives the bytes of one of items(), as it
        must where there are read_fields."""
        if isinstance(self.target, str):
            return self._decoded(self.target, row, read)
        return tuple(self._decoded(name, row, read) for name in self.target)

    def _decoded(self, name: str, row: int, read: Read | None) -> Any:
        if name == KEY:
            return self.index.key(row)
        if name in self._numbers:
            return int(self._numbers[name][row])
        if name in self.read_fields:
            assert read is not None
            data = read((1 + self.read_fields.index(name)) * len(self) + row)
        else:
            data = self.index.value(int(self._columns[name][row]))
        try:
            return decode_field(name, data)
        except ValueError as error:
            raise ValueError(f"its field {name} cannot be decoded: {error}") from error

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_items": None}

    def __repr__(self) -> str:
        return f"coordl.TarShards({len(self)} samples in {len(self.shards)} tar(s))"
