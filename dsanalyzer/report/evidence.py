"""What the figures rest on, as HTML: checks (failed ones first), passes, machine, options."""

from __future__ import annotations

from html import escape

from dsanalyzer.report.document import Pass, Result
from dsanalyzer.report.units import (
    figure,
    milliseconds,
    percent,
    rate,
    seconds,
    signed_percent,
    size,
)
from dsanalyzer.report.verdict import (
    command_line,
    expected_share,
    loader_words,
    own_cost,
    setting,
    steady_read_share,
    steady_storage_bytes,
)
from dsanalyzer.report.workers import part_costs, sample_costs


def checks(result: Result) -> str:
    """The checks as a list, failed ones first."""
    if not result["checks"]:
        return '<p class="empty">No check was recorded.</p>'
    items = []
    for check in sorted(result["checks"], key=lambda check: check["ok"]):
        kind, mark = ("", "✓ passed") if check["ok"] else ("failed", "✗ failed")
        items.append(
            f'<li class="{kind}"><span class="mark">{mark}</span><p><b>{escape(check["name"])}</b> '
            f"<span>{escape(check['detail'])}</span></p></li>"
        )
    return f'<ul class="checks">{"".join(items)}</ul>'


def reads(result: Result) -> str:
    """Bytes from storage per epoch against what the policy should read."""
    rows = []
    for epoch in result["epochs"]:
        expected = 1.0 if epoch["epoch"] == 0 else expected_share(result)
        device = "–" if epoch["device_bytes"] is None else size(epoch["device_bytes"])
        rows.append(
            [
                epoch["label"],
                size(epoch["storage_bytes"]),
                device,
                percent(epoch["read_share"]),
                "–" if expected is None else percent(expected),
            ]
        )
    mean, share = steady_storage_bytes(result), steady_read_share(result)
    if mean is not None and share is not None and len(rows) > 1:
        rows.append(["mean of later epochs", size(mean), "", percent(share), ""])
    heads = ["epoch", "read by the job", "at the block device", "share of data", "expected"]
    return table(heads, rows, text_columns=1)


def passes(result: Result) -> str:
    """One row per measured pass, in the order they ran."""
    heads = [
        "phase", "round", "epoch", "samples", "time", "samples/s", "read", "block device",
        "in memory before → after", "CPU cores used",
    ]  # fmt: skip
    return table(heads, [_pass_row(one) for one in result["passes"]], text_columns=1)


def _pass_row(one: Pass) -> list[str]:
    wall = one["wall_s"]
    before, after = one["resident_before"], one["resident_after"]
    resident = " → ".join("–" if held is None else percent(held) for held in (before, after))
    return [
        one["phase"],
        str(one["round"]),
        "–" if one["epoch"] is None else str(one["epoch"]),
        f"{one['samples']:,}",
        seconds(wall),
        figure(one["samples"] / wall) if wall > 0 else "–",
        size(one["read_bytes"]),
        "–" if one["device_bytes"] is None else size(one["device_bytes"]),
        "–" if before is None and after is None else resident,
        figure(one["cpu_s"] / wall) if one["cpu_s"] is not None and wall > 0 else "–",
    ]


def samples(result: Result) -> str:
    """What a sample took a worker; empty where nobody could see."""
    rows = [
        [phase, *map(milliseconds, (c.total_s, c.core_s, c.queued_s, c.else_s, c.collate_s))]
        for phase, c in sample_costs(result).items()
    ]
    heads = ["phase", "a sample", "on a core", "waiting for one", "the rest", "of it, collating"]
    return table(heads, rows, text_columns=1) if rows else ""


def parts(result: Result) -> str:
    """What each part of preparing a sample took a worker; empty where the data set has none."""
    rows = [
        [
            name,
            milliseconds(cost.memory_s),
            milliseconds(cost.core_s),
            "–" if cost.storage_s is None else milliseconds(cost.storage_s),
        ]
        for name, cost in part_costs(result).items()
    ]
    heads = ["part", "a sample from memory", "of it, on a core", "a sample in later epochs"]
    return table(heads, rows, text_columns=1) if rows else ""


def besides(result: Result) -> str:
    """What else makes compute longer, beside what the bars show; empty where none was measured."""
    steady = result["steady"]
    cores = f"beside {steady.get('load_cores', 0.0):.1f} busy cores, as the loader keeps them"
    rows = [
        [name, *(seconds(longer[bound]) for bound in ("value", "low", "high"))]  # type: ignore[literal-required]
        for name, longer in (
            (cores, steady.get("interference_s")),
            ("copies from pinned memory to the GPU", steady.get("copy_s")),
        )
        if longer is not None
    ]
    heads = ["compute takes longer", "an epoch", "from", "to"]
    return table(heads, rows, text_columns=1) if rows else ""


def storage(result: Result) -> str:
    """Storage alone by queue depth."""
    rows = [
        [
            str(s["queue_depth"]),
            figure(s["samples_per_s"]),
            f"{size(s['bytes_per_s'])}/s",
            "; ".join(
                f"{size(one['item_bytes'])} in {milliseconds(one['read_s'])}"
                for one in s.get("by_size", ())
            ),
        ]
        for s in result["storage"]
    ]
    heads = ["queue depth", "samples/s", "bandwidth", "reads of small, middle, large items"]
    return table(heads, rows, text_columns=0)


def table(heads: list[str], rows: list[list[str]], text_columns: int) -> str:
    """A table whose columns after the first `text_columns` are figures; all cells are text."""

    def cell(tag: str, place: int, text: str) -> str:
        kind = "" if place < text_columns else ' class="n"'
        return f"<{tag}{kind}>{escape(text)}</{tag}>"

    top = "".join(cell("th", i, text) for i, text in enumerate(heads))
    body = "".join(
        "<tr>" + "".join(cell("td", i, text) for i, text in enumerate(row)) + "</tr>"
        for row in rows
    )
    inner = f"<thead><tr>{top}</tr></thead><tbody>{body}</tbody>"
    return f'<div class="scroll"><table>{inner}</table></div>'


def plain_list(items: list[str], code: bool = False) -> str:
    shown = (f"<code>{escape(i)}</code>" if code else escape(i) for i in items)
    return '<ul class="plain">' + "".join(f"<li>{item}</li>" for item in shown) + "</ul>"


def provenance(result: Result) -> str:
    """Command, machine, versions, options: what one needs to measure it again."""
    machine, options, data = result["machine"], result["options"], result["dataset"]
    loader, emulated = result["loader"], result["emulated"]
    gpu = machine["gpu"] or "none"
    if emulated is not None:
        gpu += f"; emulated at {rate(emulated['gpu_rate'])}: {emulated['how']}"
    workers = ", ".join(
        words
        for words in (
            loader_words(result),
            f"prefetch factor {loader['prefetch_factor']}" if loader["prefetch_factor"] else "",
            f"started by {loader['start_method']}" if loader["start_method"] else "",
            "holds a cache of its own" if loader["holds_cache"] else "",
        )
        if words
    )
    facts = [
        ("Command", f"<code>{escape(command_line(result['command']))}</code>"),
        ("Measured", escape(result["created"])),
        ("Setting", escape(setting(result))),
        ("Rounds", str(options["rounds"])),
        (
            "Data set",
            escape(
                f"{data['samples']:,} samples of {loader['dataset_class']}, mean item "
                f"{size(data['mean_item_bytes'])}; {data['measured_samples']:,} samples "
                f"({size(data['measured_bytes'])}) measured"
            ),
        ),
        ("Files", "<br>".join(f"<code>{escape(name)}</code>" for name in data["files"][:3])),
        ("Loader", escape(workers)),
        ("GPU", escape(gpu)),
        (
            "Machine",
            escape(f"{machine['cpu']}, {machine['cores']} cores, {size(machine['memory_bytes'])}"),
        ),
        (
            "Software",
            escape(
                f"{result['tool']['name']} {result['tool']['version']}, torch {machine['torch']}, "
                f"Python {machine['python']}, {machine['kernel']}"
            ),
        ),
    ]
    if cost := own_cost(result):
        facts.append(("Profile", escape(cost)))
    if (model := result["model"]) is not None:
        text = (
            f"min(F, P, G) = {rate(model['predicted_speed'])}, measured "
            f"{rate(model['measured_speed'])}, error {signed_percent(model['error'])}"
        )
        facts.append(("Model", escape(text)))
    cells = "".join(f"<dt>{name}</dt><dd>{value}</dd>" for name, value in facts if value)
    return f"<dl>{cells}</dl>"
