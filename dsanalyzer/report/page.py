"""One self-contained HTML file per result: no network, no second file.

The page refuses, by its own content security policy, to load anything or to run a script that was
not in it when it was written.
"""

from __future__ import annotations

import base64
import hashlib
import json
import os
import re
import tempfile
from functools import cache
from html import escape
from importlib import resources
from pathlib import Path
from string import Template

from dsanalyzer.report import evidence, panels
from dsanalyzer.report.charts import Figure, figures
from dsanalyzer.report.document import Result, WhatIf
from dsanalyzer.report.verdict import command_line, emulation, headline, repeat_advice, setting
from dsanalyzer.report.workers import contention, crowding


class ReportExtraMissing(ImportError):
    """The page's charts need plotly, which is not a dependency of measuring."""


def write_page(result: Result, path: Path | str, whatif: WhatIf | None = None) -> Path:
    """Writes the page of `result`, with `whatif` where given, to `path` and returns it.

    An existing file is replaced, and only by a whole page: asking first is for the caller.

    Raises:
        ReportExtraMissing: plotly is not installed.
        OSError: `path` cannot be written.
    """
    drawn = figures(result)
    scripts = [plotly_script(), _asset("charts.js")] if drawn else []
    html = document(f"dsanalyzer: {headline(result)}", _body(result, drawn, whatif), drawn, scripts)
    return write_whole(Path(path), html)


def plotly_script() -> str:
    """plotly.js as shipped with the plotly package.

    Raises:
        ReportExtraMissing: plotly is not installed.
    """
    try:
        from plotly.offline import get_plotlyjs
    except ImportError as error:
        raise ReportExtraMissing(
            "the HTML report needs plotly, which is not installed.\n"
            "Install it with: pip install 'data-stall-toolkit[report]'"
        ) from error
    return str(get_plotlyjs())


def _body(result: Result, drawn: dict[str, Figure], whatif: WhatIf | None) -> str:
    parts = [heading(result["created"], command_line(result["command"]))]
    if told := emulation(result):
        parts.append(banner("emulated", told))
    failed = [check["name"] for check in result["checks"] if not check["ok"]]
    if failed:
        names = ", ".join(failed)
        parts.append(banner("check failed", f"{names}. See the evidence below.", "bad"))
    parts.append(f"<h1>{escape(headline(result))}</h1>")
    if advice := repeat_advice(result):
        parts.append(f'<p class="lead ask">{with_code(advice)}</p>')
    for told in filter(None, (contention(result), crowding(result))):
        parts.append(f'<p class="lead ask">{escape(told)}</p>')
    parts.append(f'<p class="lead">{escape(setting(result))}</p>')
    parts.append(panels.tiles(result))
    parts.append('<div class="grid">')
    parts += _sections(result, drawn, whatif)
    parts.append("</div>")
    return "\n".join(parts)


def _sections(result: Result, drawn: dict[str, Figure], whatif: WhatIf | None) -> list[str]:
    samples = f"{result['dataset']['samples']:,}"
    shown = [
        panels.section(
            "Where an epoch goes",
            f"Time per epoch of all {samples} samples. The first epoch finds the cache cold.",
            panels.stacked_bars(panels.epoch_rows(result)) + panels.part_key(result),
        ),
        panels.section(
            "Rates, samples/s",
            "The lowest of G, P and F sets the speed.",
            panels.rate_ladder(result),
            "half",
        ),
        panels.section(
            "What more cache would do",
            "Fetch rate by cached fraction. Beyond the knee, where F meets the lower of G and P, "
            "more cache buys nothing.",
            _place("rate-chart", drawn, "Needs the storage rate S and the cache rate C."),
            "half",
        ),
    ]
    if "workers-chart" in drawn:
        shown.append(
            panels.section(
                "What more workers would do",
                "The loader alone on files in memory, a pass with each number of workers. Beyond "
                "the knee more gain under 5 %; beyond G prep no longer stalls.",
                _place("workers-chart", drawn, ""),
            )
        )
    if whatif is not None and whatif.get("fixes") is not None:
        shown.append(
            panels.section(
                "Best fixes",
                "What the price file offers, the best first.",
                panels.fix_table(whatif),
            )
        )
    if whatif is not None and (whatif["scenarios"] or not whatif.get("fixes")):
        shown.append(
            panels.section(
                "What would fix it",
                "Predicted from this result, the largest speedup first; all on one scale.",
                panels.scenario_cards(whatif),
            )
        )
    shown += [
        panels.section(
            "Waits at next()",
            "Share of minibatches that waited at most so long.",
            _place("wait-chart", drawn, "No waits were recorded."),
            "half",
        ),
        panels.section(
            "Step times",
            "Every measured step. Regular spikes are workers delivering in bursts.",
            _place("step-chart", drawn, "No step times were recorded."),
            "half",
        ),
        *(
            panels.section(
                f"A few steps from close: {phase}",
                f"The training loop and its workers in the middle of the last {phase} pass"
                + (", from storage." if phase == "fetch" else ", all in memory."),
                _place(f"{phase}-timeline", drawn, ""),
            )
            for phase in ("prep", "fetch")
            if f"{phase}-timeline" in drawn
        ),
        panels.section("Evidence", "What the figures above rest on.", _evidence(result)),
        panels.section("Provenance", "What it takes to run it again.", evidence.provenance(result)),
    ]
    return shown


def _evidence(result: Result) -> str:
    parts = [
        evidence.checks(result),
        '<h3 class="sub">Bytes read per epoch</h3>',
        evidence.reads(result),
        '<h3 class="sub">Measured passes</h3>',
        evidence.passes(result),
    ]
    if costs := evidence.samples(result):
        parts += ['<h3 class="sub">What a sample takes a worker</h3>', costs]
    if costs := evidence.parts(result):
        parts += ['<h3 class="sub">What its parts take</h3>', costs]
    if besides := evidence.besides(result):
        parts += ['<h3 class="sub">Compute that is not alone</h3>', besides]
    if result["storage"]:
        parts += ['<h3 class="sub">Storage alone</h3>', evidence.storage(result)]
    if result["diverted"]:
        parts += [
            '<h3 class="sub">Writes diverted</h3>',
            evidence.plain_list(result["diverted"], code=True),
        ]
    if result["notes"]:
        parts += ['<h3 class="sub">Notes</h3>', evidence.plain_list(result["notes"])]
    return "".join(parts)


def _place(name: str, drawn: dict[str, Figure], otherwise: str) -> str:
    if name not in drawn:
        return f'<p class="empty">{escape(otherwise)}</p>'
    return f'<div class="chart" id="{name}"></div>'


def heading(created: str, command: str) -> str:
    """The thin line at the top of every page."""
    when = escape(created.replace("T", " ")[:16])
    return (
        f"<header><strong>dsanalyzer</strong><code>{escape(command)}</code>"
        f"<span>{when}</span></header>"
    )


def with_code(text: str) -> str:
    """`text` as HTML, what stands in backticks as code."""
    return re.sub(r"`([^`]*)`", r"<code>\1</code>", escape(text))


def banner(name: str, text: str, kind: str = "") -> str:
    """A line that must not be missed."""
    return f'<p class="banner {kind}" role="note"><b>{escape(name)}</b>{escape(text)}</p>'


def document(title: str, body: str, drawn: dict[str, Figure], scripts: list[str]) -> str:
    """The whole file; `body` is HTML, `scripts` run in the order given after it."""
    hashes = " ".join(f"'sha256-{_digest(script)}'" for script in scripts)
    policy = (
        f"default-src 'none'; script-src {hashes or chr(39) + 'none' + chr(39)}; "
        "style-src 'unsafe-inline'; img-src data:; base-uri 'none'; form-action 'none'"
    )
    blocks = [f'<script type="application/json" id="charts">{_embedded(drawn)}</script>']
    blocks += [f"<script>{script}</script>" for script in scripts]
    return Template(_asset("page.html")).substitute(
        csp=policy,
        title=escape(title),
        style=_asset("style.css"),
        body=body,
        scripts="\n".join(blocks) if scripts else "",
    )


def write_whole(path: Path, text: str) -> Path:
    """Writes `text` to `path` so that a reader sees the old file or the whole new one."""
    handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    try:
        with os.fdopen(handle, "w", encoding="utf-8", errors="backslashreplace") as file:
            file.write(text)
        os.chmod(name, 0o644)
        os.replace(name, path)
    except BaseException:
        os.unlink(name)
        raise
    return path


def _embedded(drawn: dict[str, Figure]) -> str:
    # "<" as an escape: no text in a result can end the script element.
    return json.dumps(drawn, separators=(",", ":"), allow_nan=False).replace("<", "\\u003c")


def _digest(script: str) -> str:
    # The browser hashes the element's text, where the parser has made every line end a newline.
    text = script.replace("\r\n", "\n").replace("\r", "\n")
    return base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()


@cache
def _asset(name: str) -> str:
    return (resources.files("dsanalyzer.report") / "assets" / name).read_text(encoding="utf-8")
