"""Two results side by side, and a prediction held against the second: arithmetic only."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

from dsanalyzer.predict.model import effective_cache
from dsanalyzer.report.document import Result, Scenario, WhatIf
from dsanalyzer.report.units import (
    figure,
    percent,
    rate,
    seconds,
    signed_percent,
    size,
    times,
)
from dsanalyzer.report.verdict import delivery_of, emulation, steady_storage_bytes


@dataclass(frozen=True)
class Row:
    """One quantity before and after, as text; `change` is after over before."""

    name: str
    before: str
    after: str
    change: str


@dataclass(frozen=True)
class Comparison:
    """What became of the job under test between two results."""

    before: Result
    after: Result
    predicted: Scenario | None = None

    @property
    def speedup(self) -> float:
        """Steady speed after over before."""
        return _ratio(
            self.after["steady"]["speed"]["value"], self.before["steady"]["speed"]["value"]
        )

    @property
    def epoch_growth(self) -> float:
        """Growth of the steady time per sample, as a share: 0.05 is 5 % slower.

        Per sample, so that two data sets of different size compare fairly; the same as the growth
        of epoch time where the data set is the same.
        """
        return _ratio(_time_per_sample(self.after), _time_per_sample(self.before)) - 1

    @property
    def prediction_error(self) -> float | None:
        """Predicted speed over measured speed − 1; positive where the prediction promised more."""
        if self.predicted is None:
            return None
        return _ratio(self.predicted["speed"]["value"], self.after["steady"]["speed"]["value"]) - 1

    def rows(self) -> list[Row]:
        """The table: epoch time, speed, the parts of an epoch, storage bytes."""
        one, two = self.before["steady"], self.after["steady"]
        rows = [
            _row("epoch time", one["time_s"]["value"], two["time_s"]["value"], seconds),
            _row("speed, samples/s", one["speed"]["value"], two["speed"]["value"], figure),
            _stall_row("fetch stall", "fetch_stall_s", self),
            _stall_row("prep stall", "prep_stall_s", self),
        ]
        if delivery_of(one) or delivery_of(two):
            before, after = (
                measured["value"] if (measured := delivery_of(steady)) else 0.0
                for steady in (one, two)
            )
            rows.append(_row("delivery", before, after, seconds))
        rows.append(_row("compute", one["compute_s"]["value"], two["compute_s"]["value"], seconds))
        bytes_before, bytes_after = (steady_storage_bytes(r) for r in (self.before, self.after))
        if bytes_before is not None and bytes_after is not None:
            rows.append(_row("storage reads per epoch", bytes_before, bytes_after, size))
        return rows

    def emulations(self) -> list[str]:
        """What must be said first where a GPU was emulated; once where both say the same."""
        before, after = emulation(self.before), emulation(self.after)
        if before and before == after:
            return [f"Before and after: {before}"]
        told = (("Before", before), ("After", after))
        return [f"{name}: {text}" for name, text in told if text]

    def differences(self) -> list[str]:
        """What else than the loader differs, so that the two are not like for like."""
        found = []
        pairs = (
            ("samples", "samples in the data set", "dataset"),
            ("cpu", "CPU", "machine"),
            ("cores", "cores", "machine"),
            ("gpu", "GPU", "machine"),
            ("torch", "torch", "machine"),
            ("gpu_rate", "emulated GPU rate", "options"),
            ("storage_bytes_per_s", "storage limit, B/s", "options"),
            ("storage_method", "storage limit by", "options"),
        )
        for key, name, section in pairs:
            one, two = self.before[section][key], self.after[section][key]  # type: ignore[literal-required]
            if one != two:
                found.append(f"{name}: {_shown(one)} before, {_shown(two)} after")
        held = [effective_cache(result)[1] for result in (self.before, self.after)]
        if abs(held[0] - held[1]) > 0.02:
            found.append(f"cached fraction: {percent(held[0])} before, {percent(held[1])} after")
        if (self.before["emulated"] is None) != (self.after["emulated"] is None):
            found.append("only one of the two ran with an emulated GPU")
        return found


def headline(pair: Comparison) -> str:
    """What changed, in one sentence."""
    one, two = (r["steady"]["time_s"]["value"] for r in (pair.before, pair.after))
    word = "faster" if pair.speedup >= 1 else "the speed"
    text = f"An epoch went from {seconds(one)} to {seconds(two)}: {times(pair.speedup)} {word}."
    error = pair.prediction_error
    if pair.predicted is not None and error is not None:
        off = "as measured"
        if abs(error) >= 0.0005:
            off = (
                f"{signed_percent(abs(error))[1:]} {'more' if error > 0 else 'less'} than measured"
            )
        text += f" The prediction was {rate(pair.predicted['speed']['value'])}, {off}."
    return text


def pick_scenario(whatif: WhatIf, name: str | None) -> Scenario:
    """The scenario called `name`, or the only one.

    Raises:
        ValueError: no such scenario, or several and no name; lists the names there are.
    """
    names = ", ".join(repr(s["name"]) for s in whatif["scenarios"]) or "none"
    if name is None:
        if len(whatif["scenarios"]) == 1:
            return whatif["scenarios"][0]
        raise ValueError(
            f"the what-if file holds {len(whatif['scenarios'])} scenarios: {names}.\n"
            "Choose the one that was carried out with --scenario NAME."
        )
    for scenario in whatif["scenarios"]:
        if scenario["name"] == name:
            return scenario
    raise ValueError(f"no scenario {name!r} in the what-if file.\nThere are: {names}.")


def prediction_doubts(whatif: WhatIf, before: Result, after: Result) -> list[str]:
    """Why the prediction may not be one: made after the fact, or from another result."""
    doubts = []
    made, measured = (_when(document["created"]) for document in (whatif, after))
    if made is not None and measured is not None and made >= measured:
        doubts.append("the prediction was written after the second result was measured")
    base = whatif["baseline"]["speed"]
    starts = [before["steady"]["speed"]["value"]]
    if before["model"] is not None:  # a prediction may start from the model's own speed
        starts.append(before["model"]["predicted_speed"])
    if all(abs(_ratio(base, speed) - 1) > 0.02 for speed in starts):
        doubts.append(
            f"the prediction starts from {rate(base)}, the first result from {rate(starts[0])}: "
            "it was made from another result"
        )
    return doubts


def _when(text: str) -> datetime | None:
    try:
        moment = datetime.fromisoformat(text)
    except ValueError:
        return None
    return moment.astimezone() if moment.tzinfo is None else moment


def _time_per_sample(result: Result) -> float:
    return result["steady"]["time_s"]["value"] / result["dataset"]["samples"]


def _ratio(top: float, bottom: float) -> float:
    if bottom == 0:
        return 1.0 if top == 0 else float("inf")
    return top / bottom


def _row(name: str, before: float, after: float, show: object) -> Row:
    assert callable(show)
    change = times(after / before) if before > 0 else "–"
    return Row(name, show(before), show(after), change)


def _stall_row(name: str, key: str, pair: Comparison) -> Row:
    cells = []
    for result in (pair.before, pair.after):
        stall = result["steady"][key]  # type: ignore[literal-required]
        doubt = " ?" if stall["verdict"] == "inconclusive" else ""
        cells.append(f"{seconds(stall['value'])} ({percent(stall['share'])}){doubt}")
    one, two = (r["steady"][key]["value"] for r in (pair.before, pair.after))  # type: ignore[literal-required]
    change = times(two / one) if one > 0 and two >= 0 else "–"
    return Row(name, cells[0], cells[1], change)


def _shown(value: object) -> str:
    if isinstance(value, float):
        return figure(value)
    return "none" if value is None else str(value)
