"""What threads keep between items is bounded: a rare giant does not pin its memory."""

from __future__ import annotations

import subprocess
import sys

GIANT = """
import io, sys
import numpy as np
from PIL import Image
from coordl import _native

def resident():
    with open("/proc/self/statm") as file:
        return int(file.read().split()[1]) * 4096

def jpeg(edge):
    noise = np.random.default_rng(0).integers(0, 256, (edge, edge, 3), np.uint8)
    out = io.BytesIO()
    Image.fromarray(noise).save(out, "JPEG", quality=100, subsampling=0)
    return out.getvalue()

def use(item):
    packed = _native.recode(item, "packed", keep_header=True)
    indexed = _native.recode(item, "indexed", keep_header=True)
    return len(packed) + len(indexed)

small, giant = jpeg(300), jpeg(4000)
assert len(giant) > 40 << 20
use(small)
before = resident()
made = use(giant)
print(len(giant), made, resident() - before)
"""


def test_recoding_a_giant_leaves_no_more_than_the_buffers_usual_items_need() -> None:
    done = subprocess.run([sys.executable, "-c", GIANT], capture_output=True, text=True, check=True)
    _, made, kept = map(int, done.stdout.split())
    assert made > 80 << 20
    assert kept < 40 << 20  # the buffers for it held three times its size: file, scan and result
