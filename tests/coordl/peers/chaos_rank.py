"""One rank of a torchrun job to which everything happens: it checks each minibatch it gets.

Arguments: the image folder, a directory for what is kept and told. In it
    checkpoint   the epoch, what all ranks took of it so far, the loader's state
    orders       see chaos_strikes.py
    stop         whoever made it wants the job to end with its epoch
    failures     what must not be, of any rank
    hangs-PID    where a rank was that waited for a minibatch for ever; else empty
    stacks-PID   what a rank and its workers were at while it waited long, or got SIGUSR1
    waits        "pid began ended first" of minibatches that were waited for
    did          a line of JSON for each rank and epoch
"""

from __future__ import annotations

import contextlib
import faulthandler
import hashlib
import json
import os
import pickle
import random
import re
import signal
import sys
import threading
import time
import traceback
from collections import Counter
from datetime import timedelta
from pathlib import Path
from typing import Any, TextIO

import chaos_strikes
import psutil
import torch
import torch.distributed as dist
from torch.utils.data.distributed import DistributedSampler

import coordl
from coordl import transforms as T
from coordl.peers import node

SEED, EDGE, BATCH = 5, 24, 2
PACE_S = 0.02  # a step of training
SAVED_EVERY = 3  # steps
LONG_S = 0.1  # waits worth a line
SHOWN_S = 1.5  # waits whose stacks are kept
HANGS_S = 30.0  # for a minibatch; it ends with what it did


class InOrder(torch.utils.data.Sampler):
    """Indices 0, 1, ... of a given epoch: for what a lone loader gives."""

    def __init__(self, count: int) -> None:
        self.count, self.epoch = count, 0

    def set_epoch(self, epoch: int) -> None:
        self.epoch = epoch

    def __iter__(self) -> Any:
        return iter(range(self.count))

    def __len__(self) -> int:
        return self.count


def digests(images: torch.Tensor, labels: torch.Tensor) -> list[bytes]:
    return [
        hashlib.blake2b(image.numpy().tobytes() + bytes([label]), digest_size=12).digest()
        for image, label in zip(images, labels.tolist(), strict=True)
    ]


class Rank:
    def __init__(self, folder: str, home: Path, prep: str, stacks: TextIO) -> None:
        self.home, self.prep, self.stacks = home, prep, stacks
        self.rank, self.world = dist.get_rank(), dist.get_world_size()
        steps = [T.RandomResizedCrop(EDGE), T.RandomHorizontalFlip(), T.ToTensor()]
        data = coordl.ImageFolder(folder, T.Compose(steps))
        self.count = len(data)
        self.sampler: Any = DistributedSampler(data, seed=3)
        workers = 1 if prep == "native" else random.randrange(3)
        self.loader = coordl.DataLoader(
            data,
            BATCH,
            sampler=self.sampler,
            seed=SEED,
            prep=prep,
            num_workers=workers,
            cache="200%",
            peers="auto",
        )
        self.in_order = InOrder(len(data))
        self.plain = coordl.DataLoader(data, 8, sampler=self.in_order, seed=SEED, prep=prep)
        self.epoch = 0
        self.got: list[int] = []  # by all ranks, of this epoch
        self.most = self.world  # ranks there were in this epoch
        self.whole = True  # this epoch, from its begin on or by the same ranks
        self.began_at = 0  # samples of each rank
        self.first = True
        self.hangs = (home / f"hangs-{os.getpid()}").open("w")

    def resume(self) -> None:
        saved = self.home / "checkpoint"
        if not saved.exists():
            return
        kept = pickle.loads(saved.read_bytes())
        self.loader.load_state_dict(kept["state"])
        self.epoch, self.got = kept["epoch"], kept["got"]
        self.whole = kept["whole"] and (not self.got or kept["world"] == self.world)
        self.began_at = len(self.got) // kept["world"]
        self.most = max(self.world, kept["most"] if self.got else 0)

    def save(self) -> None:
        if self.rank == 0:
            kept = {"epoch": self.epoch, "got": self.got, "world": self.world}
            kept |= {"whole": self.whole, "most": self.most, "state": self.loader.state_dict()}
            new = self.home / "checkpoint.new"
            new.write_bytes(pickle.dumps(kept))
            new.replace(self.home / "checkpoint")

    def run(self) -> None:
        self.resume()
        while not self.one_epoch():
            self.epoch, self.got = self.epoch + 1, []
            self.whole, self.began_at, self.most = True, 0, self.world
            self.save()

    def one_epoch(self) -> bool:
        """Whether it was the last."""
        self.sampler.set_epoch(self.epoch)
        self.in_order.set_epoch(self.epoch)
        all_of_it = [digest for batch in self.plain for digest in digests(*batch)]
        index_of = {digest: index for index, digest in enumerate(all_of_it)}
        assert len(index_of) == self.count
        # torch's own, to the letter, where this epoch saw one number of ranks
        order = DistributedSampler(range(self.count), self.world, self.rank, seed=3)  # type: ignore[arg-type]
        order.set_epoch(self.epoch)
        torchs = list(order)[self.began_at :]
        mine: list[int] = []
        iterator, stop, step = None, False, 0
        while True:
            began = time.monotonic()
            faulthandler.dump_traceback_later(HANGS_S, exit=True, file=self.hangs)
            with Shown(self.stacks):
                if iterator is None:
                    iterator = iter(self.loader)
                batch = next(iterator, None)
            faulthandler.cancel_dump_traceback_later()
            self.waited(began, time.monotonic())
            taken = None if batch is None else digests(*batch)
            if taken is not None:
                wrong = [digest for digest in taken if digest not in index_of]
                assert not wrong, f"epoch {self.epoch}: {len(wrong)} samples no lone loader gives"
                taken = [index_of[digest] for digest in taken]
                mine += taken
            told: list[Any] = [None] * self.world
            with Others():
                dist.all_gather_object(told, (taken, (self.home / "stop").exists()))
            stop |= any(each[1] for each in told)
            if batch is None:
                assert all(each[0] is None for each in told), "one rank got fewer minibatches"
                break
            self.got += [index for each in told for index in each[0]]
            step += 1
            if step % SAVED_EVERY == 0:
                self.save()
            time.sleep(PACE_S)
        if self.whole:
            assert mine == torchs, f"epoch {self.epoch}: {mine}, torch's are {torchs}"
        self.check_once()
        self.tell()
        return stop

    def check_once(self) -> None:
        """What all ranks took, before and after the checkpoint: each sample once, and torch's
        padding."""
        times = Counter(self.got)
        more = len(self.got) - self.count
        assert set(times) == set(range(self.count)), f"epoch {self.epoch}: some never came"
        assert 0 <= more < self.most, f"epoch {self.epoch}: {more} came again"
        if self.whole and more:
            first = DistributedSampler(range(self.count), 1, 0, seed=3)  # type: ignore[arg-type]
            first.set_epoch(self.epoch)
            again = [index for index, count in times.items() if count > 1]
            assert sorted(again) == sorted(list(first)[:more])

    def waited(self, began: float, ended: float) -> None:
        if ended - began > LONG_S:
            line = f"{os.getpid()} {began} {ended} {int(self.first)}"
            chaos_strikes.note(self.home / "waits", line)
        self.first = False

    def tell(self) -> None:
        figures = self.loader.stats()["epochs"][-1]
        names = ("hits", "remote_hits", "misses")
        did: dict[str, Any] = {name: figures[name] for name in names}
        exchange = self.loader._local.exchange
        did |= {"rank": self.rank, "world": self.world, "prep": self.prep, "whole": self.whole}
        did |= {"pid": os.getpid(), "descriptors": len(os.listdir("/proc/self/fd"))}
        if exchange is not None:
            did |= {"lost": exchange.membership.failures, **exchange.figures}
        chaos_strikes.note(self.home / "did", json.dumps(did))


class Shown:
    """What this rank and its workers are at, each second while this takes long."""

    def __init__(self, stacks: TextIO) -> None:
        self.stacks, self.done = stacks, threading.Event()
        threading.Thread(target=self.show, daemon=True).start()

    def show(self) -> None:
        wait_s = SHOWN_S
        while not self.done.wait(wait_s):
            wait_s = 1.0
            self.stacks.write(f"\n--- {os.getpid()} waits at {time.monotonic():.2f}\n")
            self.stacks.flush()
            faulthandler.dump_traceback(self.stacks)
            for worker in psutil.Process().children():
                with contextlib.suppress(psutil.Error):
                    if worker.name().startswith("pt_data_worker"):
                        worker.send_signal(signal.SIGUSR1)

    def __enter__(self) -> None:
        pass

    def __exit__(self, *_: Any) -> None:
        self.done.set()


class Others:
    """What fails in here is another rank's death: this one ends, and torchrun begins anew."""

    def __enter__(self) -> None:
        pass

    def __exit__(self, kind: Any, error: Any, trace: Any) -> None:
        if isinstance(error, RuntimeError):
            os._exit(7)


def main() -> None:
    folder, home, seed = sys.argv[1], Path(sys.argv[2]), sys.argv[3]
    chaos_strikes.arm(home / "orders")
    node._SERVER = (str(Path(__file__).with_name("chaos_server.py")), str(home / "orders"))
    torch.set_num_threads(1)
    stacks = (home / f"stacks-{os.getpid()}").open("w")
    faulthandler.register(signal.SIGUSR1, file=stacks)
    with Others():
        dist.init_process_group("gloo", timeout=timedelta(seconds=20))
        chosen: list[Any] = [random.Random(f"{seed}-{os.getpid()}").choice(("native", "python"))]
        dist.broadcast_object_list(chosen)
    try:
        Rank(folder, home, chosen[0], stacks).run()
    except BaseException:
        said = traceback.format_exc()
        if chaos_strikes.struck(home / "orders") & {int(pid) for pid in re.findall(r"\d+", said)}:
            os._exit(7)  # a worker process was, of this loader, and torch's says so
        chaos_strikes.note(home / "failures", said)
        raise
    with contextlib.suppress(RuntimeError):  # one has left already: all are through
        dist.barrier()


if __name__ == "__main__":
    main()
