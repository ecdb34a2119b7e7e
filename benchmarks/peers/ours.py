"""coordl's native pass, in every form an item can have.

Settings: one call per sample, into a reused (3, 224, 224) float32 buffer; items of a form are read
from the never-evict cache, as in training, where they were checked once, at admission; the kernels
are the best of this CPU, or those that COORDL_SIMD names (read once per process, so each has its
own).
Bias: ours. A form is made once, at admission, and its cost is a row of its own.
Pitfalls: an item that `recode` refuses stays the JPEG it was, as in the cache; how many is said.
"""

from __future__ import annotations

import os
from typing import Any, ClassVar

import numpy as np

from coordl import MinIOCache, _native, transforms
from coordl.prep.plan import Plan, compile_plan

from .boxes import Box
from .variant import MEAN, SIZE, STD, IntoBatch, LeftOut, Picture, Variant


def native_pass() -> _native.Pass:
    """The pass of the usual recipe."""
    recipe = transforms.Compose(
        [
            transforms.RandomResizedCrop(SIZE),
            transforms.RandomHorizontalFlip(),
            transforms.ToTensor(),
            transforms.Normalize(MEAN, STD),
        ]
    )
    plan = compile_plan(recipe)
    assert isinstance(plan, Plan)
    return plan.native_pass()


def _check_kernels() -> None:
    wanted, used = os.environ.get("COORDL_SIMD"), _native.simd()
    if wanted and used != wanted:
        raise LeftOut(f"this CPU or this build has no {wanted} kernels (it would use {used})")


class _Ours(IntoBatch):
    settings = "native pass into a reused batch"
    packages: ClassVar = ("data-stall-toolkit",)

    def __init__(self, pictures: list[Picture]) -> None:
        super().__init__(pictures)
        _check_kernels()
        self.native_pass = native_pass()
        self.items: list[bytes | memoryview] = [picture.item for picture in pictures]

    def one(self, index: int, box: Box) -> np.ndarray:
        """Raises LeftOut for a photograph that the native pass does not take."""
        if not _native.prepare_box(
            self.items[index],
            self.native_pass,
            box.x,
            box.y,
            box.width,
            box.height,
            box.flip,
            self.out,
        ):
            raise LeftOut(f"photograph {index} is not one for the native pass")
        return self.out

    def facts(self) -> dict[str, Any]:
        """bytes_ratio: bytes held in this form / bytes of the JPEGs."""
        held = sum(map(len, self.items))
        jpeg = sum(len(picture.item) for picture in self.pictures)
        return {"kernels": _native.simd(), "bytes_ratio": held / jpeg}


class Cold(_Ours):
    """From the JPEG with our own decoder, as in the first epoch without admission."""


class _Form(_Ours):
    form = ""

    def __init__(self, pictures: list[Picture]) -> None:
        super().__init__(pictures)
        forms = [_native.recode(picture.item, self.form) for picture in pictures]
        self.kept = sum(form is None for form in forms)
        self.cache = MinIOCache("1GiB", name=f"benchmark.{self.form}.{os.getpid()}")
        for index, picture in enumerate(pictures):
            self.cache.admit((0, index), forms[index] or picture.item)
            held = self.cache.get((0, index))
            if held is None:
                raise LeftOut("there is no shared memory for the items")
            self.items[index] = held

    def facts(self) -> dict[str, Any]:
        """Also kept_as_jpeg: items that have no such form."""
        return {**super().facts(), "kept_as_jpeg": self.kept}


class Packed(_Form):
    """From the packed form: quantised coefficients without entropy code."""

    form = "packed"


class Indexed(_Form):
    """From the original bytes with an index into their entropy code."""

    form = "indexed"


class Admit(_Ours):
    """First epoch with admission: the item becomes packed, and the sample comes from that."""

    settings = "recode, then the native pass, both every time"

    def one(self, index: int, box: Box) -> np.ndarray:
        """Recodes every time, as every item is admitted once."""
        jpeg = self.pictures[index].item
        self.items[index] = _native.recode(jpeg, "packed") or jpeg
        return super().one(index, box)

    def facts(self) -> dict[str, Any]:
        """The ratio belongs to the packed form."""
        return {"kernels": _native.simd()}


class _Recode(Variant):
    form = ""
    settings = "recode, nothing else"
    packages: ClassVar = ("data-stall-toolkit",)

    def one(self, index: int, box: Box) -> np.ndarray:
        """No sample: the time is what is asked for."""
        _native.recode(self.pictures[index].item, self.form)
        return np.empty(0)


class RecodePacked(_Recode):
    """What admission as packed costs."""

    form = "packed"


class RecodeIndexed(_Recode):
    """What admission as indexed costs."""

    form = "indexed"
