"""What result.json and whatif.json hold, as types; schema/*.schema.json is the same for others.

Times in seconds, sizes in bytes, rates in samples/s, shares from 0 to 1. Intervals are 95 %.
"""

from __future__ import annotations

from typing import Any, Literal, NotRequired, TypedDict

Policy = Literal["lru", "never-evict", "pagecache"]
Bound = Literal["fetch", "prep", "gpu"]
Phase = Literal["ingestion", "delivery", "interference", "copy", "prep", "drain", "sweep", "fetch"]
Verdict = Literal["stall", "none", "inconclusive"]


class Interval(TypedDict):
    value: float
    low: float
    high: float


class Rate(TypedDict):
    """A rate that was not measured has None figures; `how` then says why."""

    value: float | None
    low: float | None
    high: float | None
    unit: str
    how: str


class Rates(TypedDict):
    G: Rate
    P: Rate
    S: Rate
    C: Rate
    F: Rate


class Stall(Interval):
    share: float
    share_low: float
    share_high: float
    verdict: Verdict
    floor: NotRequired[float]  # share of the epoch that two measurements of one phase differ by
    rounds_needed: NotRequired[int | None]  # to settle an inconclusive one; None: more do not help


class Epoch(TypedDict):
    epoch: int
    label: str
    time_s: Interval
    compute_s: Interval
    delivery_s: NotRequired[Interval]
    prep_stall_s: Interval
    fetch_stall_s: Interval
    storage_bytes: int
    device_bytes: int | None
    read_share: float
    speed: Interval


class Steady(TypedDict):
    time_s: Interval
    compute_s: Interval
    delivery_s: NotRequired[Interval]  # of minibatches out of workers, where it was measured
    interference_s: NotRequired[Interval]  # that compute takes longer beside the loader's load
    load_cores: NotRequired[float]  # that the loader kept busy, and the load as many
    copy_s: NotRequired[Interval]  # that compute takes longer from pinned memory, on a GPU
    prep_stall_s: Stall
    fetch_stall_s: Stall
    speed: Interval
    bound_by: Bound
    noise_floor: NotRequired[float]  # share by which two equal phases differed (A/A)
    threshold: NotRequired[float]  # share of the epoch below which a stall is of no relevance


class Part(TypedDict):
    """What opens and decodes a file (loader), or one transform; seconds, and those on a core."""

    name: str
    wall_s: float
    cpu_s: float


class Loaded(TypedDict):
    """What samples took workers in a pass, summed over them, in seconds."""

    samples: float
    wall_s: float
    cpu_s: float
    queued_s: float
    collate_s: float
    parts: NotRequired[list[Part]]  # where the data set shows them, in the order they ran


class Pass(TypedDict):
    phase: Phase
    round: int
    epoch: int | None
    samples: int
    wall_s: float
    steps_s: list[float]
    waits_s: list[float]
    read_bytes: int
    device_bytes: int | None
    resident_before: float | None
    resident_after: float | None
    cpu_s: float | None
    queued_s: NotRequired[float]  # runnable without a core, all processes of the job
    start_s: float  # until the loader's workers were up; not part of wall_s
    loaded: NotRequired[Loaded]
    load_cores: NotRequired[float]  # of interference: that the load kept busy
    rank_waits_s: NotRequired[list[float]]  # of each rank, where there are several


What = Literal["wait", "step", "samples", "collate"]


class Span(TypedDict):
    """What the training loop or a worker did for a while, in the few steps that are kept."""

    phase: Phase
    track: str
    what: What
    begin_s: float
    lasts_s: float


class Check(TypedDict):
    name: str
    ok: bool
    detail: str


class Tool(TypedDict):
    name: str
    version: str
    took_s: NotRequired[float]
    peak_bytes: NotRequired[int]  # of dsanalyzer's own process
    recorded_bytes: NotRequired[int]  # of minibatches kept in the job


class Machine(TypedDict):
    cpu: str
    cores: int
    memory_bytes: int
    gpu: str | None
    kernel: str
    python: str
    torch: str


class Options(TypedDict):
    policy: Policy
    cached_fraction: float
    storage_bytes_per_s: float | None
    storage_method: str | None
    gpu_rate: float | None
    rounds: int
    samples: int | None
    gpu_trace: NotRequired[list[float]]  # seconds per sample, of an accelerator that follows one
    epochs: NotRequired[int]
    budget_s: NotRequired[float]
    threshold: NotRequired[float]


class Emulated(TypedDict):
    gpu_rate: float
    how: str


# Functional form: "class" is a keyword.
Loader = TypedDict(
    "Loader",
    {
        "class": str,
        "batch_size": int | None,
        "num_workers": int,
        "prefetch_factor": int | None,
        "dataset_class": str,
        "start_method": str | None,
        "holds_cache": bool,
        "ranks": NotRequired[int],  # processes that train together, each with such a loader
    },
)


class Dataset(TypedDict):
    samples: int
    measured_samples: int
    measured_bytes: int
    mean_item_bytes: float
    mean_read_bytes: NotRequired[float]  # of whole pages, as storage is asked for them
    files: list[str]


class WorkersRate(TypedDict):
    workers: int
    value: float  # samples/s
    low: float
    high: float


class SizeClass(TypedDict):
    """Means of a third of the items, by size: bytes, and seconds of one read."""

    item_bytes: float
    read_s: float


class StorageRate(TypedDict):
    queue_depth: int
    samples_per_s: float
    low: float  # 95 % interval of samples_per_s
    high: float
    bytes_per_s: float
    by_size: NotRequired[list[SizeClass]]


class Model(TypedDict):
    predicted_speed: float
    measured_speed: float
    error: float


class Result(TypedDict):
    schema: str
    created: str
    tool: Tool
    command: list[str]
    machine: Machine
    options: Options
    emulated: Emulated | None
    loader: Loader
    dataset: Dataset
    rates: Rates
    prep_by_workers: NotRequired[list[WorkersRate]]
    epochs: list[Epoch]
    steady: Steady
    passes: list[Pass]
    timeline: NotRequired[list[Span]]
    storage: list[StorageRate]
    storage_latency_s: NotRequired[float | None]  # of one sample at the disk behind held storage
    model: Model | None
    checks: list[Check]
    diverted: list[str]
    directory: NotRequired[str]  # in which the command was run
    notes: list[str]


class ScenarioRates(TypedDict):
    G: float | None
    P: float | None
    S: float | None
    C: float | None
    F: float | None


class Answers(TypedDict):
    """What the closed form and the simulator say, in samples/s, and which of them is shown."""

    closed_form: float | None
    simulated: float | None
    shown: Literal["closed form", "simulator"]
    why: str


class Scenario(TypedDict):
    name: str
    changes: dict[str, Any]
    rates: ScenarioRates
    policy: Policy
    cached_fraction: float
    speed: Interval  # of one job, over all its servers
    speedup: float
    epoch_s: float
    bound_by: Bound
    notes: list[str]
    hit_rate: NotRequired[float]
    peer_share: NotRequired[float | None]  # of reads, answered by another server's cache
    first_epoch_s: NotRequired[float | None]
    storage_bytes_per_epoch: NotRequired[float]
    busy: NotRequired[dict[str, float] | None]  # share of time
    model: NotRequired[Answers]
    verified: NotRequired[dict[str, Any]]  # speed, error, doubts of a run; or why_not


class Fix(TypedDict):
    """A change with its price; cost_per_epoch only where the machine's price is known."""

    name: str
    changes: dict[str, Any]
    price: float
    currency: str
    per: Literal["hour", "month", "once"]
    cost_per_epoch: float | None
    speed: Interval
    speedup: float
    epoch_s: float
    removes_stall: bool
    bound_by: Bound


class Baseline(TypedDict):
    speed: float
    bound_by: Bound
    epoch_s: float


class Curve(TypedDict):
    policy: Policy
    x: list[float]
    F: list[float | None]


class WhatIf(TypedDict):
    schema: str
    created: str
    result: str
    emulated: NotRequired[Emulated | None]
    doubts: NotRequired[list[str]]  # failed checks of the profile
    baseline: Baseline
    scenarios: list[Scenario]
    curves: list[Curve]
    fixes: NotRequired[list[Fix]]  # best first
    present_cost_per_epoch: NotRequired[float | None]
