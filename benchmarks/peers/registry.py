"""Which variants there are, in the order of the table."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

STOCK = "stock"  # the classic recipe, which the table compares with


@dataclass(frozen=True)
class Entry:
    """One row: a factory in a module of this package, and the process it runs in."""

    key: str
    label: str
    module: str
    factory: str
    environment: Literal["own", "peers"] = "own"
    kind: Literal["prep", "cost"] = "prep"  # cost: no sample comes out, only its time is told
    variables: dict[str, str] = field(default_factory=dict)
    path: str = ""  # folder of .venv-peers that goes before everything on the module path


def _levels(key: str, label: str, factory: str) -> list[Entry]:
    return [
        Entry(
            f"{key}-{level}",
            f"{label}, {level} kernels",
            "ours",
            factory,
            variables={"COORDL_SIMD": level},
        )
        for level in ("avx512", "avx2", "scalar")
    ]


ENTRIES: list[Entry] = [
    Entry("packed", "coordl, packed form", "ours", "Packed"),
    *_levels("packed", "coordl, packed form", "Packed"),
    Entry("indexed", "coordl, indexed form", "ours", "Indexed"),
    *_levels("indexed", "coordl, indexed form", "Indexed"),
    Entry("cold", "coordl, first epoch: JPEG, own decoder", "ours", "Cold"),
    *_levels("cold", "coordl, first epoch: JPEG, own decoder", "Cold"),
    Entry("admit", "coordl, first epoch with admission as packed", "ours", "Admit"),
    Entry(
        "nvimagecodec-torch", "nvImageCodec ROI + torch resize", "nvimagecodec", "Torch", "peers"
    ),
    Entry("nvimagecodec-cv2", "nvImageCodec ROI + OpenCV linear", "nvimagecodec", "Cv2", "peers"),
    Entry("simplejpeg", "simplejpeg, fast DCT + OpenCV area", "opencv", "Simplejpeg", "peers"),
    Entry("turbojpeg", "PyTurboJPEG + OpenCV area", "turbojpeg", "Turbojpeg", "peers"),
    Entry("cv2-area", "OpenCV, area", "opencv", "Area", "peers"),
    Entry("cv2-linear", "OpenCV, linear", "opencv", "Linear", "peers"),
    Entry(
        "torchcodec", "torchcodec + torchvision v2, reused batch", "torchcodec", "Reused", "peers"
    ),
    Entry("v2-reused", "torchvision v2 on tensors, reused batch", "torchvision", "Reused", "peers"),
    Entry("v2", "torchvision v2 on tensors, as users write it", "torchvision", "Written", "peers"),
    Entry("v2-pillow", "torchvision v2 on Pillow images", "torchvision", "OnPillow"),
    Entry("kornia", "kornia-rs, resize + normalise fused", "kornia", "Kornia", "peers"),
    Entry("dali-slice", "DALI pipeline, image_slice", "dali", "Slice", "peers"),
    Entry("dali-random", "DALI pipeline, image_random_crop", "dali", "RandomCrop", "peers"),
    Entry("spdl", "SPDL (FFmpeg)", "spdl", "Spdl", "peers"),
    Entry("ffcv", "FFCV, JPEG mode", "ffcv", "Ffcv", "peers"),
    Entry("pillow-simd", "Pillow-SIMD, crop + resize", "pillow", "Simd", "peers", path="simd"),
    Entry("pillow", "Pillow, crop + resize", "pillow", "Direct"),
    Entry(STOCK, "ImageFolder's classic: Pillow + torchvision v1", "pillow", "Stock"),
    Entry("recode-packed", "admission as packed", "ours", "RecodePacked", kind="cost"),
    Entry("recode-indexed", "admission as indexed", "ours", "RecodeIndexed", kind="cost"),
    Entry(
        "decode-simplejpeg",
        "libjpeg-turbo full decode (simplejpeg)",
        "opencv",
        "FullDecode",
        "peers",
        "cost",
    ),
    Entry(
        "decode-pillow", "libjpeg-turbo full decode (Pillow)", "pillow", "FullDecode", kind="cost"
    ),
]


def entry(key: str) -> Entry:
    """The entry of that key. Raises KeyError."""
    return {e.key: e for e in ENTRIES}[key]
