"""What the figures were taken on."""

from __future__ import annotations

import os
import platform
from pathlib import Path
from typing import Any

# What decides which kernels can run.
FLAGS = ("avx2", "avx512f", "avx512bw", "avx512vl", "avx512_vbmi2", "avx512_vnni")


def describe(note: str = "") -> dict[str, Any]:
    """CPU, its vector extensions, CPUs of this process, kernel."""
    values: dict[str, str] = {}
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        key, _, value = line.partition(":")
        values.setdefault(key.strip(), value.strip())
    present = values.get("flags", "").split()
    return {
        "cpu": values.get("model name", platform.processor()),
        "family_model": f"{values.get('cpu family', '?')}/{values.get('model', '?')}",
        "flags": {flag: flag in present for flag in FLAGS},
        "cpus": len(os.sched_getaffinity(0)),
        "kernel": platform.release(),
        "python": platform.python_version(),
        "libc": " ".join(platform.libc_ver()),
        "note": note,
    }


def line(machine: dict[str, Any]) -> str:
    """The same in a sentence."""
    flags = machine["flags"]
    avx512 = [flag for flag in FLAGS if flag.startswith("avx512") and flags[flag]]
    vector = f"AVX2 {'yes' if flags['avx2'] else 'no'}, AVX-512 {' '.join(avx512) or 'no'}"
    parts = [
        f"{machine['cpu']} (family/model {machine['family_model']})",
        vector,
        f"{machine['cpus']} CPUs",
        f"Linux {machine['kernel']}",
        f"Python {machine['python']}",
        machine["note"],
    ]
    return ", ".join(part for part in parts if part)
