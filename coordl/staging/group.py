"""Groups: jobs of one server that prepare each sample once for all of them.

There is no daemon. The jobs meet in a staging ring in shared memory (docs/shared-memory.md), whose
record says what they must agree on. A sample's bits follow from (seed, epoch, index), so whoever
finds it there copies it, and whoever does not prepares it itself.
"""

from __future__ import annotations

import errno
import json
import math
import os
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from functools import partial
from hashlib import blake2b
from typing import Any

import numpy as np

from coordl import _native
from coordl.errors import GroupError
from coordl.fetch.folder import Folder
from coordl.fetch.item import Source
from coordl.prep.plan import Plan
from coordl.staging.job_group import staging_bytes

# How long a job waits for one that holds a run and gives no sign of life, before it prepares the
# samples itself. A dead one is noticed at once; this is for those that are stopped.
PATIENCE_S = 2.0
_SHOWN = 700  # characters of a fact in the record
# A run is claimed and prepared as a whole: large enough that claims cost nothing, small enough that
# many jobs' threads find work in one minibatch's worth of samples.
_RUN_BYTES = 4 << 20
_LEAST_RUN, _MOST_RUN = 8, 64
_RUNS_AN_EPOCH = 16  # at least, where a data set is small
_PAGE = 4096


@dataclass(frozen=True)
class Facts:
    """What the members of a group must have in common, as text or numbers to compare.

    Attributes:
        dataset: its root, length and a digest of its samples.
        transforms: as plan() shows them, and a digest of all their arguments.
        order: how samples are drawn.
        samples: of one epoch of that order.
        seed: None: whichever the group has.
    """

    dataset: str
    transforms: str
    order: str
    samples: int
    seed: int | None

    @classmethod
    def of(
        cls,
        folder: Folder,
        digest: str,
        plan: Plan,
        order: str,
        samples: int,
        seed: int | None,
    ) -> Facts:
        """Of one loader; `digest` is DataDigest's of its data set."""
        steps = ", ".join(plan.steps)
        whole = blake2b(repr(plan).encode(), digest_size=8).hexdigest()
        return cls(
            folder_name(folder, digest),
            f"{steps[:_SHOWN]} -> {plan.pixel} {plan.shape} ({whole})",
            order[:_SHOWN],
            samples,
            seed,
        )

    def digest(self) -> str:
        """Of all but the seed: a name for those who do the same."""
        said = (self.dataset, self.transforms, self.order, self.samples)
        return blake2b(repr(said).encode(), digest_size=6).hexdigest()

    def difference(self, other: Facts) -> str:
        """What is another there, in words; empty where nothing is."""
        said = {
            "data set": (self.dataset, other.dataset),
            "transform": (self.transforms, other.transforms),
            "order": (self.order, other.order),
            "samples in an epoch": (self.samples, other.samples),
            "seed": (self.seed, other.seed),
        }
        return "; ".join(
            f"its {what} is {ours}, the group's is {theirs}"
            for what, (ours, theirs) in said.items()
            if ours != theirs
        )


def folder_name(folder: Folder, digest: str) -> str:
    """What a data set of files is called in a record."""
    root = getattr(folder.dataset, "root", None)
    name = f"{type(folder.dataset).__name__} {os.path.realpath(root) if root else ''}"[-_SHOWN:]
    return f"{name}, {len(folder):,} samples ({digest})"


def seed_in(name: str) -> int:
    """The seed of the group of that name, where it is there; else what it would be."""
    for ring in _native.list_rings():
        if ring["name"] == name and ring["record"]:
            return int(json.loads(ring["record"])["seed"])
    return seed_of(name)


def _lineage(pid: int) -> tuple[int, int]:
    """A process and its parent: worker processes are of the job that started them."""
    try:
        with open(f"/proc/{pid}/stat") as stat:
            return pid, int(stat.read().rpartition(")")[2].split()[1])
    except (OSError, ValueError, IndexError):  # it is gone
        return pid, 0


class DataDigest:
    """A digest of a data set's samples in their order, made again only for other ones."""

    def __init__(self) -> None:
        self._of: tuple[Any, Any, int] = (None, None, -1)
        self._known = ""

    def __call__(self, folder: Folder) -> str:
        dataset = folder.dataset
        now = (dataset, getattr(dataset, "samples", None), len(dataset))
        if self._of[0] is not now[0] or self._of[1] is not now[1] or self._of[2] != now[2]:
            self._of, self._known = now, _digest(folder)
        digest = blake2b(self._known.encode(), digest_size=8)
        if folder.rows is not None:
            digest.update(np.ascontiguousarray(folder.rows, np.int64).tobytes())
        return digest.hexdigest()


def _digest(folder: Folder) -> str:
    """Of names and targets, or of the places in shards."""
    digest = blake2b(folder.cache_name.encode(), digest_size=8)
    samples = getattr(folder.dataset, "samples", None)
    if isinstance(samples, list):
        for name, target in samples:
            digest.update(os.fsencode(name) + f"\0{target!r}\0".encode())
        return digest.hexdigest()
    source: Source = folder.source()
    if isinstance(source, list):
        digest.update(b"\0".join(map(os.fsencode, source)))
    else:
        digest.update(np.ascontiguousarray(source.items(keyed=True).keys).tobytes())
    return digest.hexdigest()


def run_samples(sample_bytes: int, samples: int) -> int:
    """How many consecutive samples share a slot."""
    wanted = max(1, min(_MOST_RUN, _RUN_BYTES // sample_bytes))
    wanted = max(_LEAST_RUN, 1 << (wanted.bit_length() - 1))
    wanted = max(1, min(wanted, samples // _RUNS_AN_EPOCH))
    # Slots are whole pages: without a gap between them minibatches can be yielded where they lie.
    gapless = _PAGE // math.gcd(_PAGE, sample_bytes)
    return wanted - wanted % gapless or wanted


def seed_of(name: str) -> int:
    """The seed of a group none of whose members names one: the same in every run of it."""
    return int.from_bytes(blake2b(name.encode(), digest_size=8, person=b"coordl.group").digest())


class Group:
    """This process's place in a group.

    Attributes:
        name: the ring's.
        facts: what its members agree on, with the seed in force.
        ring: where they meet.
    """

    def __init__(self, name: str, facts: Facts, ring: _native.Ring) -> None:
        self.name = name
        self.facts = facts
        self.ring = ring

    @property
    def seed(self) -> int:
        assert self.facts.seed is not None
        return self.facts.seed

    def again(self) -> Callable[[], _native.Ring]:
        """What joins the same ring in a spawned process."""
        ring = self.ring
        shape = (ring.sample_bytes, ring.epoch_samples, ring.run_samples)
        return partial(
            _native.Ring.open, self.name, *shape, ring.slots * ring.slot_bytes, ring.record
        )

    @classmethod
    def join(
        cls,
        name: str,
        facts: Facts,
        sample_bytes: int,
        staging: int | str | None,
        run: int | None = None,
    ) -> Group:
        """Joins the group of that name, or begins it.

        Args:
            sample_bytes: of one prepared sample.
            run: samples that share a slot; None: as many as are good.

        Raises:
            GroupError: its members do something else, or the memory is not to be had.
        """
        proposed = facts if facts.seed is not None else replace(facts, seed=seed_of(name))
        try:
            ring = _native.Ring.open(
                name,
                sample_bytes,
                facts.samples,
                run or run_samples(sample_bytes, facts.samples),
                staging_bytes(staging),
                json.dumps(asdict(proposed)),
            )
        except OSError as error:
            if error.errno in (errno.ENOSPC, errno.ENOMEM, errno.EPROTO, errno.EUSERS):
                raise GroupError(str(error.strerror)) from error
            raise
        theirs = Facts(**json.loads(ring.record))
        group = cls(name, theirs, ring)
        try:
            group.check(facts)
        except GroupError:
            ring.close()
            raise
        return group

    def check(self, facts: Facts) -> None:
        """Raises GroupError unless that is what the group does."""
        asked = replace(facts, seed=self.seed) if facts.seed is None else facts
        difference = asked.difference(self.facts)
        if difference:
            raise GroupError(
                f"this loader cannot join group {self.name!r}: {difference}. "
                "Give all members the same, or this one another group=."
            )

    def agree(self, epoch: int, indices: np.ndarray) -> None:
        """Raises GroupError when another member said that this epoch has another order."""
        digest = blake2b(np.ascontiguousarray(indices, np.int64).tobytes(), digest_size=5).digest()
        if not self.ring.agree(epoch, int.from_bytes(digest)):
            raise GroupError(
                f"this loader's order of epoch {epoch} is another than that of group "
                f"{self.name!r}: its sampler draws otherwise ({self.facts.order}). Leave the "
                "sampler's generator to coordl, or give all members one of the same seed."
            )

    def front(self) -> tuple[int, int]:
        """(epoch, sample of its order) where the job is that is furthest besides ours; else (0, 0).

        Each is where it needs the next sample: after an epoch, at the begin of the next.
        """
        members = self.ring.info()["members"]
        own = os.getpid()
        others = ((m["epoch"], m["sample"]) for m in members if own not in _lineage(m["pid"]))
        return max(others, default=(0, 0))

    def is_past(self, epoch: int, sample: int = 0) -> bool:
        """Whether that sample's slot holds a later one."""
        return self.ring.look(self._run(epoch, sample))[0] == "gone"

    def begin_in(self, epoch: int) -> int:
        """The sample of that epoch's order to begin with: 0, unless the first ones are staged no
        more. Then it is one where the others are: the first ones come at the end."""
        ring, (front, sample) = self.ring, self.front()
        if front != epoch or not self.is_past(epoch):
            return 0
        # The others go on meanwhile: a quarter of what is staged may go before it is read.
        first = max(0, sample - ring.slots * 3 // 4 * ring.run_samples)
        return sample if self.is_past(epoch, first) else first

    def at(self, epoch: int, sample: int = 0) -> None:
        """Tells the others where this process is."""
        if self.ring.ensure_lease():
            self.ring.at(self._run(epoch, sample))

    def _run(self, epoch: int, sample: int) -> int:
        runs = -(-self.ring.epoch_samples // self.ring.run_samples)
        return epoch * runs + sample // self.ring.run_samples

    def as_dict(self) -> dict[str, Any]:
        """Name, seed, slots and members, for DataLoader.stats()."""
        info = self.ring.info()
        names = ("slots", "slot_bytes", "run_samples", "claimed", "published")
        members: Sequence[dict[str, Any]] = info["members"]
        return {
            "name": self.name,
            "seed": self.seed,
            **{name: info[name] for name in names},
            "members": list(members),
        }
