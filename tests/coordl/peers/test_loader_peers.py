"""A loader among servers: the samples of one that is alone, whatever the others do."""

from __future__ import annotations

import gc
import io
import multiprocessing
import os
import signal
import sys
import time
import warnings
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import fsspec
import numpy as np
import pytest
import torch
from emulated import PICTURES, free_port, wait_until
from PIL import Image

import coordl
from coordl import _native
from coordl import transforms as T
from coordl.errors import PeerError
from coordl.fetch.cache import cache_name
from coordl.fetch.folder import find_folder
from coordl.fetch.item import identify
from coordl.peers import client as client_module
from coordl.peers import exchange as exchange_module
from coordl.peers.address import split
from coordl.peers.asking import Asking
from coordl.peers.membership import Membership
from coordl.peers.node import own_server, running
from coordl.peers.ownership import Shares


def transform() -> T.Compose:
    return T.Compose([T.RandomResizedCrop(48), T.RandomHorizontalFlip(), T.ToTensor()])


def loader_of(folder: Path, peers: Any = None, cache: Any = "64MiB", **options: Any) -> Any:
    generator = torch.Generator()
    generator.manual_seed(11)
    return coordl.DataLoader(
        coordl.ImageFolder(str(folder), transform()),
        batch_size=4,
        shuffle=True,
        generator=generator,
        seed=5,
        num_workers=2,
        cache=cache,
        peers=peers,
        prep="native",
        **options,
    )


def epochs_of(loader: Any, count: int = 2) -> list[list[torch.Tensor]]:
    return [[tensor for batch in loader for tensor in batch] for _ in range(count)]


def same(ours: list[list[torch.Tensor]], theirs: list[list[torch.Tensor]]) -> bool:
    return all(
        len(a) == len(b) and all(torch.equal(x, y) for x, y in zip(a, b, strict=True))
        for a, b in zip(ours, theirs, strict=True)
    )


class Pair:
    """This node and another one, that share a folder."""

    def __init__(self, folder: Path, make_node: Any, monkeypatch: Any, **node: Any) -> None:
        self.folder = folder
        paths = sorted(str(path) for path in folder.rglob("*.jpg"))
        self.items = identify(paths)
        # as much as a loader's own cache takes at most: equal shares
        node.setdefault("budget", int(1.8 * self.items.total_bytes))
        self.other = make_node(cache_name(str(folder)), **node)
        self.own = f"127.0.0.1:{free_port()}"
        monkeypatch.setenv("COORDL_PEERS_SELF", self.own)
        self.peers = [self.own, self.other.address]
        self.shares = Shares(self.items.keys, self.items.sizes)
        owner = self.shares.owners(self.items.keys, tuple(self.peers), (1.0, 1.0))
        self.theirs = owner == 1

    def loader(self, **options: Any) -> Any:
        return loader_of(self.folder, self.peers, **options)

    def fill_other(self, form: str = "original") -> None:
        """The other node holds what it owns."""
        for row in np.flatnonzero(self.theirs).tolist():
            data = Path(self.items.paths[row]).read_bytes()
            made = data if form == "original" else _native.recode(data, form)
            assert self.other.arena.admit(*self.items.keys[row].tolist(), made or data)


@pytest.fixture
def pair(folder, make_node, monkeypatch) -> Pair:
    return Pair(folder, make_node, monkeypatch)


@pytest.fixture
def alone(folder) -> list[list[torch.Tensor]]:
    return epochs_of(loader_of(folder, cache=None))


@pytest.mark.parametrize("form", ["original", "packed"])
def test_what_the_owner_holds_comes_from_it(pair, alone, form) -> None:
    # given another server that holds the items it owns
    pair.fill_other(form)
    pair.other.start()
    # when two epochs are read here
    loader = pair.loader()
    ours = epochs_of(loader)
    first, second = loader.stats()["epochs"]
    # then storage is read for our own items, once
    theirs = int(pair.theirs.sum())
    assert 0 < theirs < PICTURES
    assert (first["remote_hits"], first["misses"]) == (theirs, PICTURES - theirs)
    assert first["storage_bytes"] == pair.items.sizes[~pair.theirs].sum()
    assert (second["remote_hits"], second["misses"], second["storage_bytes"]) == (theirs, 0, 0)
    heading, *rows = str(loader.stats()).splitlines()
    assert heading.split()[4:7] == ["hits", "remote", "misses"] and f" {theirs} " in rows[1]
    assert second["hits"] == PICTURES - theirs
    if form == "original":
        assert first["remote_bytes"] == pair.items.sizes[pair.theirs].sum()
    # and the samples are those of a loader without peers
    assert same(ours, alone)
    assert "peers now: 2 server(s)" in loader.plan()


def test_what_storage_gives_is_handed_to_its_owner(pair, alone) -> None:
    # given another server that is empty
    pair.other.start()
    loader = pair.loader()
    ours = epochs_of(loader)
    first, second = loader.stats()["epochs"]
    # then after the first epoch it holds exactly what it owns, and storage is not read again
    assert first["misses"] == PICTURES
    held = [pair.other.arena.find(*key.tolist()) is not None for key in pair.items.keys]
    assert held == pair.theirs.tolist()
    assert (second["misses"], second["storage_bytes"]) == (0, 0)
    assert second["remote_hits"] == pair.theirs.sum()
    assert same(ours, alone)


def test_an_owner_without_room_leaves_its_items_to_storage(folder, make_node, monkeypatch) -> None:
    pair = Pair(folder, make_node, monkeypatch, budget=1 << 20)
    pair.other.start()
    loader = pair.loader(cache="1MiB", cache_form="original")
    ours = epochs_of(loader, 3)
    assert same(ours, epochs_of(loader_of(folder, cache=None), 3))
    held = pair.other.arena.stats()["used_bytes"]
    last = loader.stats()["epochs"][-1]
    assert 0 < held <= 1 << 20
    assert last["remote_bytes"] <= held
    assert last["samples"] == PICTURES == last["hits"] + last["remote_hits"] + last["misses"]


def test_a_killed_owner_costs_reads_and_no_sample(pair, alone) -> None:
    pair.fill_other()
    pair.other.start()
    loader = pair.loader()
    ours: list[list[torch.Tensor]] = [[], []]
    with pytest.warns(UserWarning, match=r"is lost; its items come from storage"):
        for number, batch in enumerate(loader):
            ours[0] += batch
            if number == 0:
                pair.other.signal(signal.SIGKILL)
        ours[1] = [tensor for batch in loader for tensor in batch]
        wait_until(lambda: loader._local.exchange.membership.failures or loader.stats() is None)
    assert same(ours, alone)
    # its items are ours now
    loader_epochs = loader.stats()["epochs"]
    assert sum(epoch["samples"] for epoch in loader_epochs) == 2 * PICTURES
    assert len(loader._local.exchange.membership.live().names) == 1


def test_a_stopped_owner_costs_its_deadline_and_no_sample(pair, alone, monkeypatch) -> None:
    monkeypatch.setattr(client_module, "DEADLINE_S", 0.5)
    pair.fill_other()
    pair.other.start()
    loader = pair.loader()
    iterator = iter(loader)  # connected
    ours = [list(next(iterator))]
    pair.other.signal(signal.SIGSTOP)
    for batch in iterator:
        ours[0] += batch
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        ours.append([tensor for batch in loader for tensor in batch])
    assert same(ours, alone)
    pair.other.signal(signal.SIGCONT)


def test_a_restarted_owner_is_asked_again(pair, alone) -> None:
    pair.fill_other()
    pair.other.start()
    loader = pair.loader()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        ours = epochs_of(loader, 1)
        membership = loader._local.exchange.membership
        pair.other.signal(signal.SIGKILL)
        client = membership.live().clients[1]
        membership.lost(client, OSError("killed"), client.run)
        assert len(membership.live().names) == 1
        pair.other.start()
        wait_until(lambda: len(membership.live().names) == 2)
        ours += epochs_of(loader, 1)
    assert loader.stats()["epochs"][1]["remote_hits"] == pair.theirs.sum()
    assert same(ours, alone)


def test_a_late_server_is_found(pair, alone, monkeypatch) -> None:
    monkeypatch.setattr(exchange_module, "SETTLE_S", 0)
    pair.fill_other()
    loader = pair.loader()
    with pytest.warns(UserWarning, match="does not answer yet"):
        ours = epochs_of(loader, 1)
    assert loader.stats()["epochs"][0]["remote_hits"] == 0
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        pair.other.start()
        membership = loader._local.exchange.membership
        wait_until(lambda: len(membership.live().names) == 2)
        ours += epochs_of(loader, 1)
    assert same(ours, alone)


def test_a_server_that_lies_about_contents_is_not_asked_again(pair, alone, monkeypatch) -> None:
    # given a node whose memory was written to: other pictures under its items' keys
    pair.other.start()
    other = io.BytesIO()
    Image.new("RGB", (64, 64)).save(other, "JPEG")
    for key in pair.items.keys[pair.theirs].tolist():
        assert pair.other.arena.admit(*key, other.getvalue())
    loader = pair.loader()
    with pytest.warns(UserWarning, match="gave bytes that are not the item asked for"):
        ours = epochs_of(loader)
    # then no such sample is delivered
    assert same(ours, alone)
    figures = loader._local.exchange.figures
    assert 1 <= figures["damaged"] <= exchange_module.IN_FLIGHT + 1
    assert loader.stats()["total"]["remote_hits"] == 0


def test_a_wrong_token_is_told_and_storage_serves(pair, alone, monkeypatch) -> None:
    monkeypatch.setattr(exchange_module, "SETTLE_S", 0)
    pair.other.environment = {"COORDL_TOKEN": "another token of some length"}
    pair.fill_other()
    pair.other.start()
    loader = pair.loader()
    with pytest.warns(UserWarning, match="is not asked .*does not have our token"):
        ours = epochs_of(loader)
    assert same(ours, alone)
    assert loader.stats()["total"]["remote_hits"] == 0


def test_a_port_that_is_taken_is_an_error_that_says_so(pair) -> None:
    import socket

    with socket.socket() as taken:
        taken.bind(("127.0.0.1", int(pair.own.rpartition(":")[2])))
        taken.listen()
        with pytest.raises(
            PeerError, match=f"cannot listen at {pair.own}: Address already in use$"
        ):
            next(iter(pair.loader()))


def test_no_token_is_an_error_before_anything_is_read(pair, monkeypatch, tmp_path) -> None:
    monkeypatch.delenv("COORDL_TOKEN")
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path))
    with pytest.raises(PeerError, match="Run `coordl token`"):
        next(iter(pair.loader()))


def test_an_iterator_left_early_ends_and_the_next_is_right(pair, folder) -> None:
    pair.fill_other()
    pair.other.start()
    loader, plain = pair.loader(), loader_of(folder, cache=None)
    for each in (loader, plain):
        next(iter(each))
    assert same(epochs_of(loader), epochs_of(plain))


# slow: seen once to hang in the fork itself, where a thread of gRPC had Python 3.11's lock of
# thread states. Forks wait for those threads since; nothing proves that it is long enough.
@pytest.mark.slow
def test_worker_processes_forked_beside_live_connections_do_not_hang(pair, folder) -> None:
    pair.fill_other()
    pair.other.start()
    loader = pair.loader()
    iterator = iter(loader)
    next(iterator)
    # a validation loader with Python's transforms starts workers in the middle of the epoch
    context = multiprocessing.get_context("fork")
    beside = coordl.DataLoader(
        coordl.ImageFolder(str(folder), transform()),
        4,
        num_workers=2,
        prep="python",
        multiprocessing_context=context,
    )
    assert len(list(beside)) == 6
    assert len(list(iterator)) == 5
    assert loader.stats()["total"]["samples"] == PICTURES


def test_bad_arguments_are_refused_when_the_loader_is_made(folder) -> None:
    with pytest.raises(ValueError, match="as cache="):
        loader_of(folder, "auto", cache=None)
    with pytest.raises(ValueError, match="'auto', 'ray' or a list"):
        loader_of(folder, "automatic")
    for wrong in (["a"], ["a:b"], ["::1:80"], ["a:0"], ["a:70000"]):
        with pytest.raises(ValueError, match="port"):
            loader_of(folder, wrong)
    with pytest.raises(ValueError, match="each server once"):
        loader_of(folder, ["a:1", "a:1"])
    random = coordl.MinIOCache("1MiB", admission="random")
    with pytest.raises(ValueError, match="admission"):
        loader_of(folder, "auto", cache=random)


def test_a_list_without_this_machine_is_an_error(folder) -> None:
    with pytest.raises(PeerError, match="COORDL_PEERS_SELF"):
        next(iter(loader_of(folder, ["203.0.113.1:5000"])))


def test_without_a_distributed_job_auto_says_so_and_goes_on(folder, alone) -> None:
    loader = loader_of(folder, "auto")
    with pytest.warns(UserWarning, match="init_process_group"):
        ours = epochs_of(loader, 1)
    assert same(ours, alone[:1])
    assert os.environ["COORDL_SHM_DIR"]


@pytest.mark.parametrize("workers", [0, 2])
@pytest.mark.parametrize("held", [True, False])
def test_python_samples_ask_the_owner_too(pair, folder, workers, held) -> None:
    # given another server that holds what it owns, or nothing
    if held:
        pair.fill_other()
    pair.other.start()
    steps = T.Compose([T.RandomResizedCrop(32), T.ToTensor(), lambda tensor: tensor + 1])
    data = coordl.ImageFolder(str(folder), steps)
    options: Any = {"seed": 3, "num_workers": workers, "multiprocessing_context": None}
    loader = coordl.DataLoader(data, 4, cache="64MiB", peers=pair.peers, **options)
    ours = epochs_of(loader)
    # then the samples are those of a loader without peers
    assert same(ours, epochs_of(coordl.DataLoader(data, 4, **options)))
    # and each server holds what it owns
    theirs = [pair.other.arena.find(*key.tolist()) is not None for key in pair.items.keys]
    assert theirs == pair.theirs.tolist()
    assert loader.stats()["cache_forms"]["original"] == PICTURES - sum(theirs)
    if workers == 0:
        first, second = loader.stats()["epochs"]
        assert first["remote_hits"] == held * pair.theirs.sum()
        assert (second["remote_hits"], second["misses"]) == (pair.theirs.sum(), 0)
    assert "asked before storage, by Python" in loader.plan()


def test_threads_that_ask_first_at_once_know_all_servers(pair, monkeypatch) -> None:
    # given a server that is found slowly, and threads that fetch a minibatch's objects together
    pair.other.start()
    looked = Membership.look

    def look(members: Any) -> bool:
        time.sleep(0.3)
        return looked(members)

    monkeypatch.setattr(Membership, "look", look)
    own_server(pair.other.name, *split(pair.own))
    asking = Asking(pair.other.name, pair.own, pair.peers, 1 << 20, "auto", pair.shares)
    key = pair.items.keys[np.flatnonzero(pair.theirs)[0]]
    with ThreadPoolExecutor(4) as pool:
        found = list(pool.map(lambda _: asking.owner(key), range(4)))
    assert [client and client.address for client in found] == [pair.other.address] * 4


@pytest.mark.parametrize("workers", [0, 2])
def test_objects_of_remote_storage_are_shared_as_files_are(
    make_node, folder, monkeypatch, workers
) -> None:
    # given a folder that no server has a copy of, and two that share their caches
    memory = fsspec.filesystem("memory")
    memory.rm("/peers", recursive=True) if memory.exists("/peers") else None
    for path in folder.rglob("*.jpg"):
        memory.pipe(f"/peers/{path.relative_to(folder)}", path.read_bytes())
    data = coordl.ImageFolder("memory://peers", transform())
    size = sum(path.stat().st_size for path in folder.rglob("*.jpg"))
    other = make_node(find_folder(data).cache_name, budget=int(1.8 * size)).start()  # as ours
    own = f"127.0.0.1:{free_port()}"
    monkeypatch.setenv("COORDL_PEERS_SELF", own)
    options: Any = {"seed": 3, "num_workers": workers, "multiprocessing_context": None}
    loader = coordl.DataLoader(data, 4, cache="64MiB", peers=[own, other.address], **options)
    ours = epochs_of(loader, 3)
    assert same(ours, epochs_of(coordl.DataLoader(data, 4, **options), 3))
    # then each is read once, and comes from its owner's memory afterwards
    held = other.arena.stats()["items"]
    assert 0 < held < PICTURES
    if workers == 0:
        first, *later = loader.stats()["epochs"]
        assert (first["misses"], first["remote_hits"]) == (PICTURES, 0)
        assert [(one["misses"], one["remote_hits"]) for one in later] == [(0, held)] * 2


def test_python_samples_go_on_when_the_owner_is_killed(pair, folder) -> None:
    pair.fill_other()
    data = coordl.ImageFolder(str(folder), transform())
    options: Any = {"seed": 3, "num_workers": 2, "prep": "python"}
    pair.other.start()
    loader = coordl.DataLoader(data, 4, cache="64MiB", peers=pair.peers, **options)
    ours = []
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for number, batch in enumerate(loader):
            ours += batch
            if number == 1:
                pair.other.signal(signal.SIGKILL)
    assert same([ours], epochs_of(coordl.DataLoader(data, 4, **options), 1))


def test_what_watches_opens_sees_reads_of_storage_alone(pair) -> None:
    # given an audit hook, as dsanalyzer has one
    opened: list[str] = []
    on = [True]
    sys.addaudithook(
        lambda event, given: (
            opened.append(str(given[0]))
            if on and event == "open" and str(given[0]).endswith(".jpg")
            else None
        )
    )
    for row in np.flatnonzero(pair.theirs).tolist()[2:]:  # all but two of what it owns
        data = Path(pair.items.paths[row]).read_bytes()
        pair.other.arena.admit(*pair.items.keys[row].tolist(), data)
    pair.other.start()
    opened.clear()
    loader = pair.loader()
    epochs_of(loader, 1)
    on.clear()
    misses = loader.stats()["total"]["misses"]
    assert len(opened) == len(set(opened)) == misses == PICTURES - pair.theirs.sum() + 2


def test_a_loader_keeps_its_server_from_a_job_with_another_list(pair, monkeypatch) -> None:
    monkeypatch.setattr(exchange_module, "SETTLE_S", 0)
    monkeypatch.setenv("COORDL_PEERS_LINGER_S", "30")
    name, port = cache_name(str(pair.folder)), free_port()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        loader = pair.loader()
        epochs_of(loader, 1)
        with pytest.raises(PeerError, match=f"runs at {pair.own} for another job"):
            own_server(name, "127.0.0.1", port)
        # a loader made after it, with the list changed meanwhile, has one where that says
        del loader
        gc.collect()
        pair.own = f"127.0.0.1:{port}"
        pair.peers[0] = pair.own
        monkeypatch.setenv("COORDL_PEERS_SELF", pair.own)
        monkeypatch.setenv("COORDL_PEERS_LINGER_S", "0")
        loader = pair.loader()
        epochs_of(loader, 1)
    told = running(name)
    assert told is not None and told["address"] == pair.own


def test_this_nodes_own_server_is_started_again_when_it_was_killed(pair) -> None:
    pair.other.start()
    loader = pair.loader()
    epochs_of(loader, 1)
    name = cache_name(str(pair.folder))
    told = running(name)
    assert told is not None
    os.kill(told["pid"], signal.SIGKILL)
    wait_until(lambda: (running(name) or told)["run"] != told["run"])
    again = running(name)
    assert again is not None and again["address"] == told["address"] == pair.own
