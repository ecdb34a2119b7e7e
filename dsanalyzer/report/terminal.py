"""Results on a terminal, from 80 columns: the verdict first, then what it rests on."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import Any

from rich.console import Console

from dsanalyzer.report import comparison as pairs
from dsanalyzer.report.comparison import Comparison
from dsanalyzer.report.document import Epoch, Fix, Result, Scenario, Steady, WhatIf
from dsanalyzer.report.screen import FILL, STYLES, Screen, bar_cells
from dsanalyzer.report.units import (
    figure,
    milliseconds,
    percent,
    rate,
    rate_range,
    seconds,
    signed_percent,
    size,
    times,
)
from dsanalyzer.report.verdict import (
    BOUND_WORDS,
    command_line,
    delivery_of,
    emulation,
    expected_share,
    headline,
    loader_words,
    next_command,
    own_cost,
    rate_unit_of,
    repeat_advice,
    setting,
    steady_read_share,
    steady_storage_bytes,
)
from dsanalyzer.report.workers import contention, crowding, part_costs, sample_costs, workers_knee

PARTS = (
    ("compute", "compute_s", "compute"),
    ("delivery", "delivery_s", "delivery"),
    ("prep", "prep_stall_s", "prep stall"),
    ("fetch", "fetch_stall_s", "fetch stall"),
)
RATES = (("G", "GPU", "gpu"), ("P", "prep", "prep"), ("F", "fetch", "fetch"))
PARTS_TOLD = 4
MOST_DIVERTED = 5  # files named here; the result has all
LABEL = 23  # columns left of a bar


def summary(result: Result, console: Console, *, path: str = "result.json") -> None:
    """Prints `result`: verdict, an epoch as bars, rates, evidence, next step.

    `path` is where the result was written: it goes into the command to run next.
    """
    screen = Screen(console)
    if told := emulation(result):
        screen.paragraph(told, "magenta", "EMULATED  ")
        screen.blank()
    screen.paragraph(headline(result), "bold")
    if advice := repeat_advice(result):
        screen.paragraph(advice, "yellow")
    for told in (contention(result), crowding(result)):
        if told:
            screen.paragraph(told, "yellow")
    screen.paragraph(f"Setting: {setting(result)}.", "dim")
    _epoch_bars(result, screen)
    _rate_ladder(result, screen)
    _evidence(result, screen)
    _checks(result, screen)
    screen.heading("Next")
    screen.command(command_line(next_command(result, path)))


def _epoch_bars(result: Result, screen: Screen) -> None:
    screen.heading("Where an epoch goes", f"{result['dataset']['samples']:,} samples")
    first = next((epoch for epoch in result["epochs"] if epoch["epoch"] == 0), None)
    rows: list[tuple[str, Epoch | Steady]] = [("later epochs", result["steady"])]
    if first is not None:
        rows.insert(0, ("first epoch", first))
    longest = max(row["time_s"]["value"] for _, row in rows) or 1.0
    room = screen.width - LABEL
    steady = result["steady"]
    parts = [part for part in PARTS if part[0] != "delivery" or delivery_of(steady)]
    for name, row in rows:
        whole = row["time_s"]["value"]
        values = [row[key]["value"] for _, key, _ in parts]  # type: ignore[literal-required]
        bar = [
            (FILL[part] * count, STYLES[part])
            for (part, _, _), count in zip(parts, bar_cells(values, room / longest), strict=True)
        ]
        screen.line(f"  {name:<12}{seconds(whole):>8} ".ljust(LABEL), *bar)
    whole = steady["time_s"]["value"]
    for part, key, name in parts:
        interval = steady[key]  # type: ignore[literal-required]
        share = interval["value"] / whole if whole > 0 else 0.0
        bounds = f"{seconds(interval['low'])} to {seconds(interval['high'])}"
        screen.line(
            " " * LABEL,
            (FILL[part] * 2, STYLES[part]),
            f" {name:<12}{percent(share):>6}   {seconds(interval['value']):>8}",
            (f"   {bounds}", "dim"),
        )


def _rate_ladder(result: Result, screen: Screen) -> None:
    screen.heading("Rates, samples/s", "the lowest of G, P and F sets the speed")
    rates = result["rates"]
    lowest = rate_unit_of(result["steady"]["bound_by"])
    longest = max((rates[k]["value"] or 0.0 for k, _, _ in RATES), default=0.0)  # type: ignore[literal-required]
    mark = "  ◀ lowest"
    room = screen.width - LABEL - len(screen.plain(mark))
    for letter, name, part in (*RATES, ("S", "storage", ""), ("C", "cache", "")):
        inner = letter in "SC"
        value = rates[letter]["value"]  # type: ignore[literal-required]
        label = f"{'  ' if inner else ''}  {letter} {name:<8}"
        if value is None:
            why = rates[letter]["how"]  # type: ignore[literal-required]
            screen.paragraph(f"not measured: {why}", "dim", f"{label:<14}")
            continue
        cells = round(room * value / longest) if longest > 0 else 0
        fill = ("─" if inner else "█") * min(max(cells, 1), room)
        beyond = "»" if cells > room else ""
        screen.line(
            f"{label:<14}{figure(value):>8} ",
            (fill + beyond, "dim" if inner else STYLES[part]),
            (mark if letter == lowest else "", "bold red"),
        )
    model = result["model"]
    text = f"Measured speed {rate(result['steady']['speed']['value'])}"
    text += f" ({rate_range(result['steady']['speed'])})"
    if model is not None:
        text += f"; the model says {rate(model['predicted_speed'])}"
        text += f", error {signed_percent(model['error'])}"
    screen.paragraph(text + ".", "dim", "  ")


def _evidence(result: Result, screen: Screen) -> None:
    screen.heading("Evidence")
    read, share = steady_storage_bytes(result), steady_read_share(result)
    if read is not None and share is not None:
        text = f"{size(read)} per later epoch, {percent(share)} of the data set"
        if (expected := expected_share(result)) is not None:
            text += f" (expected {percent(expected)})"
        _fact(screen, "storage reads", text)
    devices = [e["device_bytes"] for e in result["epochs"] if e["device_bytes"] is not None]
    if devices:
        shown = ", ".join(size(value) for value in devices)
        _fact(screen, "block device", f"{shown} by epoch")
    for phase, wanted in (("prep", "in memory"), ("fetch", "in memory")):
        held = [
            p["resident_before"]
            for p in result["passes"]
            if p["phase"] == phase and p["resident_before"] is not None
        ]
        if held:
            span = " to ".join(dict.fromkeys((percent(min(held)), percent(max(held)))))
            _fact(screen, f"before {phase}", f"{span} of the bytes {wanted}")
    _fact(screen, "loader", loader_words(result))
    for phase, cost in sample_costs(result).items():
        text = f"{milliseconds(cost.total_s)} of a worker: {milliseconds(cost.core_s)} on a core, "
        text += f"{milliseconds(cost.queued_s)} waiting for one, {milliseconds(cost.else_s)} else"
        _fact(screen, f"sample, {phase}", text)
    if costs := part_costs(result):
        longest = [f"{name} {milliseconds(c.memory_s)}" for name, c in costs.items()][:PARTS_TOLD]
        _fact(screen, "of it, longest", ", ".join(longest))
    steady = result["steady"]
    if (longer := steady.get("interference_s")) is not None:
        text = f"compute takes {seconds(longer['value'])} of an epoch longer beside "
        text += f"{steady.get('load_cores', 0.0):.1f} cores kept busy as the loader does"
        _fact(screen, "busy cores", text)
    if (longer := steady.get("copy_s")) is not None:
        _fact(screen, "copies", f"{seconds(longer['value'])} of an epoch to the GPU, if pinned")
    if "threshold" in steady and "noise_floor" in steady:
        text = f"a stall counts from {percent(steady['threshold'])} of the epoch; two equal phases "
        text += f"differ by {percent(steady['noise_floor'])} here"
        _fact(screen, "verdicts", text)
    if (knee := workers_knee(result)) is not None:
        swept = result["prep_by_workers"]
        told = ", ".join(f"{one['workers']}: {figure(one['value'])}" for one in swept)
        text = f"{told} samples/s; more than {knee} gain under 5 %"
        if knee == swept[-1]["workers"]:
            text = f"{told} samples/s; more than {knee} may be faster still"
        _fact(screen, "by workers", f"prep, one pass each: {text}")


def _fact(screen: Screen, name: str, text: str) -> None:
    screen.paragraph(text, "", f"  {name:<15}")


def _checks(result: Result, screen: Screen) -> None:
    failed = [check for check in result["checks"] if not check["ok"]]
    passed = len(result["checks"]) - len(failed)
    _fact(screen, "checks", f"{passed} passed, {len(failed)} failed")
    if told := own_cost(result):
        _fact(screen, "profile", told)
    for check in failed:
        screen.paragraph(f"{check['name']}: {check['detail']}", "red", "  ✗ ")
    if diverted := result["diverted"]:
        count = f"{len(diverted)} file{'s' if len(diverted) > 1 else ''}"
        _fact(screen, "writes", f"{count} diverted:")
        for path in diverted[:MOST_DIVERTED]:
            screen.paragraph(path, "dim", "    ")
        if (more := len(diverted) - MOST_DIVERTED) > 0:
            screen.paragraph(f"and {more} more, in the result's file", "dim", "    ")
    for note in result["notes"]:
        screen.paragraph(note, "dim", "  note: ")


def whatif_table(whatif: WhatIf, console: Console) -> None:
    """Prints the scenarios, the largest speedup first."""
    screen = Screen(console)
    if emulated := whatif.get("emulated"):
        screen.paragraph(
            f"From a profile with an emulated GPU of {rate(emulated['gpu_rate'])}.",
            "magenta",
            "EMULATED  ",
        )
    for doubt in whatif.get("doubts", []):
        screen.paragraph(f"the profile's check failed: {doubt}", "yellow", "Doubtful: ")
    base = whatif["baseline"]
    screen.paragraph(
        f"Now: {rate(base['speed'])}, {seconds(base['epoch_s'])} an epoch, "
        f"bound by {BOUND_WORDS[base['bound_by']]}.",
        "bold",
    )
    scenarios = sorted(whatif["scenarios"], key=lambda s: -s["speedup"])
    fixes = whatif.get("fixes")
    if scenarios or fixes is None:
        _scenarios(scenarios, screen)
    if fixes is not None:
        _fixes(whatif, fixes, screen)


def _scenarios(scenarios: list[Scenario], screen: Screen) -> None:
    screen.heading("Predicted")
    if not scenarios:
        screen.line("  no scenario was asked for")
        return
    fixed = 50
    room = max(10, min(40, screen.width - fixed - 2))
    head = f"{'samples/s':>9}  {'(95 %)':<13}{'speedup':>7}  {'epoch':>8}  bound"
    screen.line(("  " + "change".ljust(room) + head, "dim"))
    told = Counter(note for scenario in scenarios for note in scenario["notes"])
    common = [note for note, times_told in told.items() if times_told > 1]
    for scenario in scenarios:
        _scenario(scenario, screen, room, common)
    for note in common:
        screen.paragraph(note, "dim", "  note: ")


def _scenario(scenario: Scenario, screen: Screen, room: int, common: Sequence[str]) -> None:
    name = screen.plain(scenario["name"])
    if len(name) > room - 1:  # a line of its own rather than a name cut short
        screen.paragraph(name, "bold", "  ")
        name = ""
    bounds = screen.plain(f"({rate_range(scenario['speed'])})")
    short = seconds(scenario["epoch_s"]).replace("min", "m")
    screen.line(
        ("  " + name.ljust(room), "bold"),
        f"{figure(scenario['speed']['value']):>9}  ",
        (f"{bounds:<13}", "dim"),
        f"{times(scenario['speedup']):>7}  {short:>8}  ",
        (BOUND_WORDS[scenario["bound_by"]], STYLES[scenario["bound_by"]]),
    )
    model = scenario.get("model")
    if model is not None and model["shown"] == "simulator":
        screen.paragraph(f"simulated; {model['why']}", "dim", "    ")
    for note in scenario["notes"]:
        if note not in common:
            screen.paragraph(note, "dim", "    ")
    if (verified := scenario.get("verified")) is not None:
        _verified(verified, screen)


def _verified(verified: dict[str, Any], screen: Screen) -> None:
    """What a run of the scenario showed."""
    if "why_not" in verified:
        screen.paragraph(f"not run: {verified['why_not']}", "yellow", "    ")
        return
    speed = verified["speed"]
    text = f"run: {rate(speed['value'])} ({rate_range(speed)}), error "
    screen.paragraph(text + signed_percent(verified["error"]), "bold", "    ")
    for doubt in verified["doubts"]:
        screen.paragraph(f"its check failed: {doubt}", "yellow", "    ")


def _fixes(whatif: WhatIf, fixes: list[Fix], screen: Screen) -> None:
    """The ranking under a price file: cost of an epoch where it is known, else the price."""
    present = whatif.get("present_cost_per_epoch")
    by_epoch = present is not None
    screen.heading(
        "Best fixes", "by the cost of an epoch" if by_epoch else "cheapest that removes the stall"
    )
    if not fixes:
        screen.line("  nothing the price file offers makes it faster")
        return
    money = f"{fixes[0]['currency']} per {fixes[0]['per']}".strip().replace("per once", "once")
    room = max(24, screen.width - 56)
    last = "epoch costs" if by_epoch else "stall"
    screen.line((f"  {'change':<{room}}{money:>16}{'samples/s':>12}{'speedup':>9}  {last}", "dim"))
    for fix in fixes:
        name = screen.plain(fix["name"])
        if len(name) > room - 1:
            screen.paragraph(name, "bold", "  ")
            name = ""
        end = "none left" if fix["removes_stall"] else BOUND_WORDS[fix["bound_by"]]
        if by_epoch and fix["cost_per_epoch"] is not None:
            end = f"{fix['cost_per_epoch']:.3g}"
        screen.line(
            (f"  {name:<{room}}", "bold"),
            f"{fix['price']:>16.4g}{figure(fix['speed']['value']):>12}{times(fix['speedup']):>9}",
            f"  {end}",
        )
    if present is not None:
        screen.paragraph(f"An epoch costs {present:.3g} {fixes[0]['currency']} now.", "dim", "  ")


def comparison(
    before: Result,
    after: Result,
    predicted_scenario: Scenario | None,
    console: Console,
    doubts: Sequence[str] = (),
) -> None:
    """Prints the table before/after and, with a prediction, its error.

    `doubts` are reasons why the prediction may not be one (comparison.prediction_doubts).
    """
    screen = Screen(console)
    pair = Comparison(before, after, predicted_scenario)
    for text in pair.emulations():
        screen.paragraph(text, "magenta", "EMULATED  ")
    screen.paragraph(pairs.headline(pair), "bold")
    screen.blank()
    screen.line((f"  {'':<25}{'before':>16}  {'after':>16}  {'change':>8}", "dim"))
    for row in pair.rows():
        screen.line(f"  {row.name:<25}{row.before:>16}  {row.after:>16}  {row.change:>8}")
    if predicted_scenario is not None and pair.prediction_error is not None:
        screen.heading("Prediction", predicted_scenario["name"])
        speed = predicted_scenario["speed"]
        screen.line(f"  predicted  {rate(speed['value'])} ({rate_range(speed)})")
        measured = after["steady"]["speed"]
        screen.line(f"  measured   {rate(measured['value'])} ({rate_range(measured)})")
        screen.line(("  error      ", ""), (signed_percent(pair.prediction_error), "bold"))
    for doubt in doubts:
        screen.paragraph(f"{doubt}.", "yellow", "  doubt: ")
    if different := pair.differences():
        screen.heading("Not like for like")
        for text in different:
            screen.paragraph(text, "yellow", "  ")
