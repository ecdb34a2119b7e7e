"""Delivery: torch's DataLoader, with native fetch and prep where it knows what to do.

It alone wires the steps: order (torch's samplers) -> fetch -> prep -> minibatch.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from typing import Any, TypeVar

import torch
import torch.utils.data

from coordl import _native
from coordl.cores import auto_workers, usable_cores
from coordl.delivery.as_torch import PythonIterator, PythonWorkersIterator
from coordl.delivery.grouped import GroupIterator
from coordl.delivery.history import History
from coordl.delivery.joining import Joined, why_alone
from coordl.delivery.layout import FORMATS, InMemoryFormat
from coordl.delivery.native import NativeIterator
from coordl.delivery.native_epoch import NativeEpoch
from coordl.delivery.on_error import check_on_error
from coordl.delivery.position import Position, sampler_epoch
from coordl.delivery.proof import verify
from coordl.delivery.resume import Resume
from coordl.delivery.route import Route, describe, route_of
from coordl.delivery.shared_order import why_not_shared
from coordl.delivery.stats import Stats
from coordl.delivery.tended import tended_view
from coordl.fetch.admission import check_first_come
from coordl.fetch.budget import parse_budget
from coordl.fetch.cache import MinIOCache, check_form
from coordl.fetch.folder import Folder, find_folder
from coordl.fetch.opens import COUNTED, Opens
from coordl.fetch.reads import COUNTED as READS
from coordl.fetch.served import OpenCounters, opens_cache, opens_folder, serve_opens
from coordl.fetch.source import CachedFolder, FolderItems, cache_figures, cached
from coordl.fetch.tally import Tally
from coordl.integrations.rebuilding import keep_when_rebuilt
from coordl.peers.asking import Asking
from coordl.peers.exchange import check_peers, exchange_of
from coordl.prep.keyed import KeyedDataset
from coordl.prep.prefix import PrefixedFolder
from coordl.staging.job_group import JobGroup, staging_bytes
from coordl.staging.paths import SharedSamples
from coordl.staging.slots import SlotPool
from coordl.staging.view import view_of
from coordl.user_warning import warn_user

T_co = TypeVar("T_co", covariant=True)


class _Local:
    """What belongs to this process: never pickled nor copied along with the loader."""

    def __init__(self) -> None:
        self.history = History()
        self.resume = Resume()
        self.items: FolderItems | None = None
        self.pool: _native.BufferPool | None = None
        self.opens_cache: MinIOCache | None = None
        self.exchange: Any = None  # with other servers
        self.slots: SlotPool | None = None
        self.samples = SharedSamples()
        self.joined = Joined()
        self.warned = False

    def __reduce__(self) -> tuple:
        return _Local, ()


class _WhereProcesses:
    """torch's warning of more workers than cores, where workers are processes. Gives torch's own
    method, which so warns from where torch calls it."""

    def __get__(self, loader: Any, owner: Any) -> Any:
        torchs = torch.utils.data.DataLoader.check_worker_number_rationality
        if loader is None:
            return torchs
        native = loader.num_workers > 0 and route_of(loader).native
        return _nothing if native else torchs.__get__(loader)


class DataLoader(torch.utils.data.DataLoader[T_co]):
    """torch's DataLoader without data stalls: same arguments, same order of samples.

    Image folders (torchvision's ImageFolder and DatasetFolder, coordl's ImageFolder, PackedFolder
    and TarShards, Subsets of them) with the usual transforms are read and prepared by native
    threads; `num_workers` is then the number of prep threads, and no process is started. Where only
    the first transforms are known, they run natively in torch's workers. Everything else runs as
    torch runs it; `plan()` says which and why.

    `num_workers="auto"`: native threads for the usable cores (affinity, CPU quota, ranks of this
    machine), or worker processes for those of them that a short measurement finds free; the
    attribute is the number.

    Args beyond torch's, all keyword-only and kept as attributes of the same name:
        cache: memory for encoded items, which are never evicted: bytes (int), "2GiB", "65%" (of
            the data set's encoded bytes), "auto" (what the machine's limits allow), or a
            MinIOCache. It is shared by all loaders and processes of this user on this machine that
            read the same root folder.
        cache_form: how the cache holds JPEGs, see MinIOCache; "auto" by the budget and by the rates
            this loader measures. A MinIOCache given has its own; without cache= there is nothing to
            hold, and any other than "auto" is an error.
        cache_opens: for data sets coordl does not know: what their Python code opens to read below
            their root (True) or the folder named comes from the cache, see coordl.fetch.opens;
            stats() counts what was served and what bypassed it.
        peers: the servers of a job share their caches: each holds the items it owns, and gives them
            to the others, so that storage is read for what no cache holds. "auto": the servers of
            the running torch.distributed job, or, where none runs, of the Ray cluster; "ray": those
            of the Ray cluster, whatever job; or a list of "host:port", the same on all, this one
            included. Needs cache=, a token (`coordl token`) and the extra `servers`. See
            docs/servers.md.
        seed: keys every random draw of a sample by (seed, epoch, index): same bits with any
            number of workers. The epoch is the sampler's (`set_epoch`), else the number of
            iterators of this loader that yielded. The order stays torch's own business.
        prep: "auto"; "native" raises where that cannot be; "python" as torch does it.
        memory_format: torch.channels_last makes minibatches of images (B, 3, H, W) with those
            strides; natively that costs nothing. None: as torch makes them.
        on_error: what becomes of a sample that cannot be made. "raise": its error, with index and
            path. "skip": its minibatch is smaller by it, and left out when nothing remains. A
            function is called with the ItemError and returns a sample in its place, or
            coordl.SKIP; where Python workers make the samples, it is called there. stats() counts
            and lists them.
        group: a name, or a JobGroup, whose staging= counts where this loader's is None. Loaders of
            that name, in any jobs of this user on this machine, that read the same data set with
            the same transforms, seed and order prepare each sample once for all of them; batch
            size, speed, start and end are each one's own. The order of torch's samplers is then
            drawn from (seed, epoch), unless their generator is yours. Without seed= it is the
            group's. The environment variable COORDL_GROUP names one for all loaders that can share,
            each data set apart. The attribute is the name.
        verify: keep a digest of what is yielded, for verify_epoch(); costs about 1 ms a megabyte.
        staging: memory the first of a group sets aside for prepared samples: bytes or "2GiB". None:
            what COORDL_STAGING says, else 2 GiB, at most a quarter of what may be had. Who falls
            further behind than it holds prepares for itself.
        snapshot_every_n_steps: as torchdata's StatefulDataLoader has it, for data sets and samplers
            that keep a state of their own: how often it comes from the workers. Each so many-th
            minibatch; 0 or None: at the begin of a pass only. What came after the last one is
            made again on resume.

    Raises:
        ValueError: a bad argument; prep="native" where samples must be made in Python; group=
            where they cannot be shared.
        PeerError: peers= without pyarrow, peers="ray" without Ray. (No token, no address or no Ray
            cluster: when an epoch begins.)
    """

    def __init__(
        self,
        dataset: torch.utils.data.Dataset[T_co],
        batch_size: int | None = 1,
        shuffle: bool | None = None,
        sampler: torch.utils.data.Sampler | Iterable | None = None,
        batch_sampler: torch.utils.data.Sampler[list] | Iterable[list] | None = None,
        num_workers: int | str = 0,
        collate_fn: Callable[[list[Any]], Any] | None = None,
        pin_memory: bool = False,
        drop_last: bool = False,
        timeout: float = 0,
        worker_init_fn: Callable[[int], None] | None = None,
        multiprocessing_context: Any = None,
        generator: Any = None,
        *,
        prefetch_factor: int | None = None,
        persistent_workers: bool = False,
        pin_memory_device: str = "",
        in_order: bool = True,
        cache: int | str | MinIOCache | None = None,
        cache_form: str = "auto",
        cache_opens: bool | str | os.PathLike[str] = False,
        peers: str | Sequence[str] | None = None,
        seed: int | None = None,
        prep: str = "auto",
        memory_format: torch.memory_format | None = None,
        on_error: str | Callable[[Any], Any] = "raise",
        snapshot_every_n_steps: int | None = 1,
        group: str | JobGroup | None = None,
        staging: int | str | None = None,
        verify: bool = False,
    ) -> None:
        subclasses = dict(vars(self))  # set before this
        if prep not in ("auto", "native", "python"):
            raise ValueError(f"prep is 'auto', 'native' or 'python', got {prep!r}")
        if seed is not None and (isinstance(seed, bool) or not isinstance(seed, int)):
            raise TypeError(f"seed is an int or None, got {type(seed).__name__}")
        if cache is not None and not isinstance(cache, MinIOCache):
            parse_budget(cache, dataset_bytes=1 << 60)  # a wrong one is told now
        if memory_format is not None and memory_format not in FORMATS:
            raise ValueError(
                "memory_format is torch.channels_last, torch.contiguous_format or None, "
                f"got {memory_format!r}"
            )
        if memory_format is torch.channels_last and batch_size is None and batch_sampler is None:
            raise ValueError(
                "memory_format=torch.channels_last is for minibatches; batch_size=None makes none. "
                "Give the samples that format, or a batch_size."
            )
        check_on_error(on_error, dataset)
        if snapshot_every_n_steps is not None and snapshot_every_n_steps < 0:
            raise ValueError(f"snapshot_every_n_steps is 0 or more, got {snapshot_every_n_steps}")
        check_form(cache_form, "cache_form")
        _check_form_has_a_cache(cache_form, cache)
        self.cache = cache
        check_peers(peers, cache)
        self.peers = peers
        if cache_opens and cache is None:
            raise ValueError("cache_opens serves from a cache: give its size as cache=")
        if cache_opens:
            opens_folder(dataset, cache_opens)  # a wrong one is told now
            if isinstance(cache, MinIOCache):
                check_first_come(cache.admission, "cache_opens")
        self.cache_form = cache_form
        self.cache_opens = cache_opens
        self.memory_format = memory_format
        self.seed = seed
        self.prep = prep
        self.on_error = on_error
        self.snapshot_every_n_steps = snapshot_every_n_steps
        if group is not None:
            named = group if isinstance(group, JobGroup) else JobGroup(group)
            staging, group = named.staging if staging is None else staging, named.name
        if staging is not None:
            staging_bytes(staging)  # a wrong one is told now
        self.group = group
        self.staging = staging
        self.verify = verify
        self._local = _Local()
        _warn_of_lost(subclasses, self)
        auto = isinstance(num_workers, str) and num_workers == "auto"
        super().__init__(
            dataset,
            batch_size,
            shuffle,
            sampler,
            batch_sampler,
            usable_cores() if auto else num_workers,  # type: ignore[arg-type]
            collate_fn,
            pin_memory,
            drop_last,
            timeout,
            worker_init_fn,
            multiprocessing_context,
            generator,
            prefetch_factor=prefetch_factor,
            persistent_workers=persistent_workers,
            pin_memory_device=pin_memory_device,
            in_order=in_order,
        )
        route = route_of(self)
        if prep == "native" and not route.native:
            raise ValueError("prep='native' cannot be: " + "; ".join(route.reasons))
        if group is not None and (reason := why_alone(self, route)):
            raise ValueError(f"group={group!r} cannot be: {reason}")
        self._auto = ""  # why num_workers="auto" is the number it is
        if auto:
            self.num_workers, self._auto = auto_workers(route.native)

    def __copy__(self) -> Any:
        return view_of(self, _local=_Local())

    def __iter__(self) -> Any:
        if (early := self._local.resume.take_early()) is not None:
            return early
        if isinstance(self._iterator, PythonWorkersIterator) and self.cache is not None:
            found, known = find_folder(self.dataset), self._local.items
            if not isinstance(found, str) and self._folder_items(found) is not known:
                self._iterator = None  # persistent workers know only the files as they were
        return super().__iter__()

    def _get_iterator(self) -> Any:
        route = route_of(self)
        if route.native:
            shared = self._local.joined.native(self, route)
            return (GroupIterator if shared else NativeIterator)(self, route)
        if self.prep == "native":  # an attribute changed since the loader was made
            raise ValueError("prep='native' cannot be: " + "; ".join(route.reasons))
        self._warn_of_useless_cache(route)
        view, source = self._with_dataset(self._python_dataset(route))
        saved = self._local.resume.saved(self)
        own, workers = self._for_workers(self.dataset), saved.workers if saved else {}
        view = tended_view(self, view, own, workers, bool(saved and saved.again))
        kind = PythonIterator
        if self.num_workers > 0:
            self.check_worker_number_rationality()
            kind = PythonWorkersIterator  # type: ignore[assignment]
        return kind(view, self, source)

    check_worker_number_rationality = _WhereProcesses()  # type: ignore[assignment]

    # -- native ------------------------------------------------------------------------------

    def _native_epoch(self, route: Route, position: Position, pinned: bool) -> NativeEpoch:
        assert route.folder is not None and route.plan is not None
        local = self._local
        items = self._folder_items(route.folder)
        if local.pool is None:
            ahead = self.num_workers * max(1, self.prefetch_factor or 2)
            local.pool = _native.BufferPool(ahead + 2)  # one in the consumer's hands, one to come
        return NativeEpoch(
            folder=route.folder,
            plan=route.plan,
            items=items.table,
            tiers=items.tiers,
            form="auto" if items.cache is None else items.cache.form,
            pool=local.pool,
            seed=self.seed,
            position=position,
            on_error=self.on_error,
            exchange=self._exchange(items),
            files=items,
            pinned=pinned,
        )

    def _exchange(self, items: FolderItems) -> Any:
        local = self._local
        if self.peers is None or items.cache is None:
            return None
        if local.exchange is None or local.exchange.pid != os.getpid():
            local.exchange = exchange_of(self.peers, items.cache.arena)
        return local.exchange

    def _folder_items(self, folder: Folder) -> FolderItems:
        """The data set's items, their identities as they are now: a changed file is a new item."""
        local, source = self._local, folder.source()
        if local.items is not None:
            local.items = local.items.renewed(source)
        else:
            items = FolderItems.of(source, self.cache is not None, None)
            if self.cache is not None:
                cache = self.cache
                if not isinstance(cache, MinIOCache):
                    cache = MinIOCache(cache, form=self.cache_form)
                items = items.with_cache(cache)
            local.items = items
        if local.items.cache is not None:
            local.items.cache.serve(folder.cache_name, local.items.items)
            local.items.cache.warn_of_troubles()
        return local.items

    # -- as torch does it --------------------------------------------------------------------

    def _python_dataset(self, route: Route) -> Any:
        dataset: Any = self.dataset
        folder = route.folder
        if route.prefix is not None and folder is not None:
            files = self._asking(self._folder_items(folder))
            dataset = PrefixedFolder(folder, files, route.prefix, self._tally_of(folder))
        elif folder is not None and (route.cached or folder.objects is not None):
            files = self._asking(self._folder_items(folder))
            dataset = cached(folder, files, self._tally_of(folder))
        elif self.cache_opens:
            dataset = serve_opens(dataset, self._opens())
        dataset = self._for_workers(dataset)
        if (shared := self._local.joined.python(self, dataset, route)) is not None:
            return shared
        if self.seed is not None and not isinstance(dataset, torch.utils.data.IterableDataset):
            dataset = KeyedDataset(dataset, self.seed)
        return dataset

    def _asking(self, files: FolderItems) -> FolderItems:
        """The same, asking other servers where there are some."""
        exchange = self._exchange(files)
        if exchange is None or files.cache is None:
            return files
        cache = files.cache
        names, live = exchange.membership.known(), exchange.membership.live()
        files.shares.fit(live.names, live.weights)  # once, and not in each worker
        asking = Asking(
            cache.name, exchange.own, names, cache.budget_bytes, cache.form, files.shares
        )
        return replace(files, asking=asking)

    def _tally_of(self, folder: Folder) -> Tally | None:
        """Reads of workers are counted where somebody will ask: of a cache, and of requests that
        may cost money."""
        asked = folder.objects is not None or self.cache is not None
        return Tally(READS, self.num_workers) if asked and self.num_workers else None

    def _for_workers(self, dataset: Any) -> Any:
        """The same samples, as memory worker processes share."""
        if self.num_workers == 0 or self.worker_init_fn is not None:  # it may look at the data set
            return dataset
        return self._local.samples.view(dataset)

    def _opens(self) -> Opens:
        folder = opens_folder(self.dataset, self.cache_opens)
        if self._local.opens_cache is None:
            assert self.cache is not None
            self._local.opens_cache = opens_cache(self.cache, folder)
        self._warn_of_unopened(folder)
        return Opens([folder], self._local.opens_cache, Tally(COUNTED, self.num_workers))

    def _with_dataset(self, dataset: Any) -> tuple[Any, Any]:
        """A view of this loader over another data set or with images in its memory format
        (itself where there is neither), and what counts reads in this process."""
        source = dataset.dataset if isinstance(dataset, KeyedDataset) else dataset
        counting: Any = None
        if isinstance(source, CachedFolder) and source.counts_all(self.num_workers):
            counting = source
        elif hasattr(source, "opens") and source is not self.dataset:
            counting = OpenCounters(source.opens.tally)
        formatted = self.memory_format is torch.channels_last
        if dataset is self.dataset and not formatted:
            return self, counting
        view = view_of(self)
        if formatted:
            view.collate_fn = InMemoryFormat(self.collate_fn, torch.channels_last)
        view.__dict__["dataset"] = dataset  # torch forbids to set it; the view was never anyone's
        return view, counting

    def _python_epoch(self, source: Any, turn: int) -> tuple[Position, bool, bool]:
        """(where the pass is, whether samples are keyed, whether a group makes them)."""
        position = self._local.resume.begin(self, native=False, turn=turn)
        if source is not None:
            source.reset_counters()
            position.record.counters = source.counters
        keyed = self.seed is not None and not isinstance(
            self.dataset, torch.utils.data.IterableDataset
        )
        position.record.shared = self._local.joined.begin_python(position.epoch, position.order)
        return position, keyed, position.record.shared is not None

    def _warn_of_useless_cache(self, route: Route) -> None:
        known = route.folder is not None or self.cache_opens
        if self.cache is None or known or self._local.warned:
            return
        self._local.warned = True
        warn_user(
            f"cache={self.cache!r} cannot serve here: {route.reasons[0]}. "
            "Give the files as an image folder, ask for cache_opens=True, or drop cache=."
        )

    def _warn_of_unopened(self, folder: str) -> None:
        total = self._local.history.as_dict()["total"]
        opened = ("hits", "misses", "bypassed_opens")
        if not total["samples"] or self._local.warned or any(total[name] for name in opened):
            return
        self._local.warned = True
        warn_user(
            f"cache_opens={self.cache_opens!r}: in {total['samples']:,} samples the data set "
            f"opened no file below {folder!r} where Python could see it. Name the folder it reads "
            "from, or drop cache_opens=."
        )

    # -- what users ask ----------------------------------------------------------------------

    def _epoch_number(self) -> int:
        sampler, epoch = sampler_epoch(self)
        return self._local.history.yielded if sampler is None else epoch

    def state_dict(self) -> dict[str, Any]:
        """Where the latest iterator of this loader is: what was yielded, not what was prefetched.

        Of constant size, but for what samplers and data sets with a state_dict() of their own say.
        Before the first iterator it makes one, which the next iter() gives. See docs/resume.md.
        """
        return self._local.resume.state_dict(self)

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """The next iterator goes on from a state; after that of a pass's end the next pass begins.

        Nothing consumed is fetched or prepared again. {} forgets a state that was loaded.

        Raises:
            TypeError: no dictionary.
            StateError: it is no state of coordl.DataLoader. (What does not fit this loader or its
                data set, the next iter() says.)
        """
        if not isinstance(state_dict, dict):
            kind = type(state_dict).__qualname__
            raise TypeError(f"load_state_dict() takes what state_dict() gave, not a {kind}")
        self._iterator = None  # persistent workers are elsewhere
        self._local.resume.load(self, state_dict)

    def verify_epoch(self) -> dict[str, Any]:
        """Proves that the epoch that ended last gave each sample of the sampler's order once.

        Jobs of a group compare what it returns: epoch; samples, and how many distinct ones; the one
        of the order that the job began_at, where it came late; digests of the order from its first
        sample on and, with verify=True and native threads, of their content: index and pixels,
        whatever the batch size. content is None elsewhere, and where the pass began in mid-epoch or
        samples were left out or replaced.

        Raises:
            GroupError: it did not, or no epoch has ended.
            ValueError: the order of the loader's sampler is not known beforehand.
        """
        if reason := why_not_shared(self):
            raise ValueError(f"verify_epoch() cannot tell: {reason}")
        position = self._local.resume.position
        return verify(position, None if position is None else position.content)

    def stats(self) -> Stats:
        """What happened so far: {"epochs": [...], "total": {...}, "cache_bytes", ...}; print() of
        it is a table.

        Per epoch (iterator) and in total: samples yielded; hits, misses (items), ssd_hits (hits on
        the cache's disk); remote_hits and remote_bytes, which other servers gave; storage_bytes
        read from files; admitted_bytes the cache took for them;
        served_bytes from the cache, and bypassed_opens and bypassed_bytes around it, with
        cache_opens; read_ahead_bytes: most that waited in memory for prep at one time; fetch_s,
        prep_s, admit_s (rewriting and admitting items) summed over threads; from_original,
        from_indexed, from_packed: samples prepared from items of that form; wait_s the consumer
        spent inside next(). None where Python worker processes did the work and nobody counted.
        skipped and replaced: samples that could not be made (on_error), and per epoch bad_samples,
        (index, path, error) of the first 20 of them.
        cache_bytes and cache_budget (the one in force) in bytes of memory; cache_limit: why that is
        another than the one asked for, or what "auto" was chosen from, or empty; ssd_bytes and
        ssd_budget of the disk, cache_forms in items, admission the policy. None without a cache in
        use. staging: how Python workers' minibatches came, "staged" in slots or inline, with
        tensors sent "as_torch" does and "why", in slots used "once"; "slots" kept and "slot_bytes".
        None without such workers. Per epoch shared: in a group, samples "prepared" here for all,
        "staged" by others, prepared "alone" for this job only; "viewed": yielded where they are
        staged, without a copy; holders "given_up" on, runs
        "taken_over" from the dead; group: its name, seed, slots and members. None outside one.
        """
        figures = Stats(self._local.history.as_dict())
        figures.update(cache_figures(self._cache_in_use()))
        figures["staging"] = self._local.slots.stats() if self._local.slots else None
        group = self._local.joined.group
        figures["group"] = group.as_dict() if group else None
        return figures

    def _cache_in_use(self) -> MinIOCache | None:
        items = self._local.items
        return items.cache if items else self._local.opens_cache

    def plan(self) -> str:
        """What runs natively, what in Python, and why; for reading. Once the cache is open, with
        the budget in force and what is held."""
        text = describe(self, route_of(self), self._cache_in_use())
        if self._local.exchange is None:
            return text
        return "\n".join([text, *self._local.exchange.describe()])


keep_when_rebuilt(DataLoader)


def _nothing() -> None:
    pass


def _same(given: Any, kept: Any) -> bool:
    if isinstance(given, JobGroup):
        given = given.name
    return given is kept or (isinstance(given, str | int | float) and given == kept)


def _warn_of_lost(before: dict[str, Any], loader: DataLoader[Any]) -> None:
    """A subclass written for torch's loader may have attributes of names that are ours."""
    lost = [name for name, value in before.items() if not _same(value, vars(loader)[name])]
    if lost:
        warn_user(
            f"{type(loader).__qualname__} sets {', '.join(lost)} before super().__init__(), which "
            "sets them anew: they are attributes of coordl.DataLoader. Pass them to it as "
            "arguments if that is meant, or rename them."
        )


def _check_form_has_a_cache(form: str, cache: int | str | MinIOCache | None) -> None:
    if form == "auto":
        return
    if cache is None:
        raise ValueError(
            f"cache_form={form!r} needs cache=: without one, no items are held. Give cache= (as "
            "'65%'), or drop cache_form=."
        )
    if isinstance(cache, MinIOCache) and cache.form != form:
        raise ValueError(
            f"cache_form={form!r}, and the MinIOCache given has form={cache.form!r}. "
            "Drop cache_form=, or give that form to the MinIOCache."
        )
