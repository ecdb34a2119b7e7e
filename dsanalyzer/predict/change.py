"""One thing, or several, that a what-if question changes."""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import Any

FORMS = ("original", "indexed", "packed")


@dataclass(frozen=True)
class Change:
    """What is different in a scenario; None leaves a thing as measured.

    Args:
        loader: "coordl", never-evict cache and native prep.
        form: in which coordl holds items: original, indexed or packed.
        policy: of the memory for data: lru, never-evict or pagecache.
        cached_fraction: share of the data set held in memory (of each server), 0 to 1.
        cores: CPU cores for prep, in place of the machine's.
        workers: of the loader.
        storage_bytes_per_s: sequential rate of the storage.
        gpu_speedup: factor on the ingestion rate. gpus: as many, of one job on one server.
        jobs: on this server at once, each with an accelerator of its own.
        coordinated: fetch and prep done once for all of them.
        servers: that train one job. partitioned: their caches serve one another.
        network_bytes_per_s: that a server receives from the others.
        shared_storage: one storage for all servers, instead of one each.
    """

    loader: str | None = None
    form: str | None = None
    policy: str | None = None
    cached_fraction: float | None = None
    cores: int | None = None
    workers: int | None = None
    storage_bytes_per_s: float | None = None
    gpu_speedup: float | None = None
    gpus: int | None = None
    jobs: int | None = None
    coordinated: bool | None = None
    servers: int | None = None
    partitioned: bool | None = None
    network_bytes_per_s: float | None = None
    shared_storage: bool | None = None

    def __post_init__(self) -> None:
        if self.form is not None and self.form not in FORMS:
            raise ValueError(f"unknown form {self.form!r}; choose one of {', '.join(FORMS)}")
        if (self.jobs or 1) > 1 and (self.servers or 1) > 1:
            raise ValueError(
                "several jobs on several servers at once cannot be predicted; ask for --jobs and "
                "--servers one after the other"
            )

    @property
    def name(self) -> str:
        parts = [
            " ".join(filter(None, (self.loader, self.form))),
            _part("cache {:.0%}", self.cached_fraction),
            self.policy or "",
            _part("{} cores", self.cores),
            _part("{} worker" + ("s" if self.workers != 1 else ""), self.workers),
            _part("storage {:.0f} MB/s", self.storage_bytes_per_s, 1e-6),
            _part("GPU ×{:g}", self.gpu_speedup),
            _part("{} GPUs", self.gpus),
            _part("{} jobs", self.jobs) + (", coordinated" if self.coordinated else ""),
            _part("{} servers", self.servers) + (", partitioned" if self.partitioned else ""),
        ]
        return " + ".join(filter(None, parts)) or "as measured"

    def merged(self, other: Change) -> Change:
        """Both; where both say something, `other` holds."""
        return Change(**{**self.asked, **other.asked})

    @property
    def asked(self) -> dict[str, Any]:
        """What it changes, by name."""
        return {f.name: value for f in fields(self) if (value := getattr(self, f.name)) is not None}


def _part(words: str, value: float | None, scale: float = 1) -> str:
    if value is None:
        return ""
    return words.format(value if scale == 1 else value * scale)
