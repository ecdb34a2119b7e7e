"""The HTML pages: whole, closed to the network, and safe against what a result says."""

from __future__ import annotations

import base64
import hashlib
import json
import re
import sys
from html.parser import HTMLParser

import pytest

from dsanalyzer.report import page
from dsanalyzer.report.charts import MOST_POINTS, rate_chart, step_chart, wait_chart
from dsanalyzer.report.comparison_page import write_comparison_page
from dsanalyzer.report.page import ReportExtraMissing, write_page
from dsanalyzer.report.units import NBSP

VOID = {"meta", "br"}


class Reader(HTMLParser):
    """Collects what the tests ask of a page, and whether its elements are balanced."""

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.attributes: list[tuple[str, str, str]] = []
        self.headings: list[str] = []
        self.ids: list[str] = []
        self.scripts: list[tuple[dict, str]] = []
        self.policy = ""
        self.text = ""

    def handle_starttag(self, tag, attrs):
        self.attributes += [(tag, name, value or "") for name, value in attrs]
        self.ids += [value for name, value in attrs if name == "id"]
        if tag == "script":
            self.scripts.append((dict(attrs), ""))
        if dict(attrs).get("http-equiv") == "Content-Security-Policy":
            self.policy = dict(attrs)["content"]
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        if self.open and self.open[-1] == "script":
            attributes, text = self.scripts[-1]
            self.scripts[-1] = (attributes, text + data)
            return
        if self.open and self.open[-1] == "h2":
            self.headings.append(data)
        self.text += data


def read(path) -> Reader:
    reader = Reader()
    reader.feed(path.read_text(encoding="utf-8"))
    reader.close()
    assert reader.open == []
    return reader


@pytest.fixture
def written(tmp_path, result, whatif) -> Reader:
    return read(write_page(result, tmp_path / "page.html", whatif))


@pytest.fixture
def compared(tmp_path, result, after, whatif) -> Reader:
    path = tmp_path / "compare.html"
    return read(write_comparison_page(result, after, whatif["scenarios"][2], path))


def test_the_page_has_every_section(written):
    assert written.headings == [
        "Where an epoch goes", "Rates, samples/s", "What more cache would do", "What would fix it",
        "Waits at next()", "Step times", "Evidence", "Provenance",
    ]  # fmt: skip


def test_without_a_whatif_its_section_is_absent(tmp_path, result):
    assert "What would fix it" not in read(write_page(result, tmp_path / "p.html")).headings


@pytest.mark.parametrize("name", ["written", "compared"])
def test_the_page_fetches_nothing(name, request):
    shown = request.getfixturevalue(name)
    assert not [a for a in shown.attributes if a[1] in ("src", "href", "srcset", "action", "data")]
    assert not [tag for tag, _, _ in shown.attributes if tag in ("link", "iframe", "img", "object")]
    assert "default-src 'none'" in shown.policy
    styles = page._asset("style.css")
    assert "url(" not in styles and "@import" not in styles


def test_the_policy_allows_exactly_the_scripts_of_the_page(written):
    run = [text for attributes, text in written.scripts if "type" not in attributes]
    hashes = {
        f"'sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}'"
        for text in run
    }
    (allowed,) = re.findall(r"script-src ([^;]*)", written.policy)
    assert set(allowed.split()) == hashes and len(hashes) == 2
    assert not [a for a in written.attributes if a[1].startswith("on")]


def test_the_comparison_runs_no_script(compared):
    assert compared.scripts == []
    assert "script-src 'none'" in compared.policy


def test_the_page_leads_with_emulation_failed_checks_and_the_verdict(written):
    text = written.text.replace(NBSP, " ")
    assert text.index("The GPU is emulated at 900 samples/s") < text.index("idle machine. See")
    assert text.index("idle machine. See") < text.rindex("The GPU waits 79 % (78–80) of each epoch")
    assert text.rindex("The GPU waits 79 %") < text.index("Where an epoch goes")


def test_a_real_gpu_is_never_called_emulated(tmp_path, make_result):
    shown = read(write_page(make_result(emulated=False), tmp_path / "p.html"))
    assert "mulated" not in shown.text


def test_failed_checks_come_before_passed_ones(written):
    evidence = written.text[written.text.index("Evidence") :]
    assert evidence.index("✗ failed") < evidence.index("✓ passed")


def test_the_place_of_every_chart_is_in_the_page(written):
    (charts,) = (text for attributes, text in written.scripts if attributes.get("id") == "charts")
    assert set(json.loads(charts)) == {"rate-chart", "wait-chart", "step-chart"}
    assert set(json.loads(charts)) <= set(written.ids)


def test_no_text_of_a_result_becomes_markup(tmp_path, result, whatif, after):
    evil = '</script><script>alert(1)</script><img src="x" onerror="alert(1)">'
    result["command"] = ["python", evil]
    result["checks"][0].update(name=evil, detail=evil)
    result["diverted"] = result["notes"] = [evil]
    result["epochs"][0]["label"] = evil
    result["loader"]["class"] = result["rates"]["S"]["how"] = result["emulated"]["how"] = evil
    whatif["scenarios"][0].update(name=evil, notes=[evil])
    shown = read(write_page(result, tmp_path / "p.html", whatif))
    assert len(shown.scripts) == 3
    assert not [a for a in shown.attributes if a[0] == "img"]
    path = write_comparison_page(result, after, whatif["scenarios"][0], tmp_path / "c.html", [evil])
    assert read(path).scripts == []


def test_a_dollar_in_a_result_is_only_a_dollar(tmp_path, result):
    result["command"] = ["sh", "-c", "python $SCRIPT ${body}"]
    assert "$SCRIPT ${body}" in read(write_page(result, tmp_path / "p.html")).text


def test_unmeasured_rates_leave_a_sentence_in_place_of_the_chart(tmp_path, result):
    result["rates"]["S"].update(value=None, low=None, high=None, how="nothing was read cold")
    result["rates"]["F"].update(value=None, low=None, high=None, how="needs S")
    result["passes"] = []
    shown = read(write_page(result, tmp_path / "p.html"))
    assert "not measured: nothing was read cold" in shown.text
    assert "Needs the storage rate S and the cache rate C." in shown.text
    assert shown.scripts == []  # no chart, so nothing to run


def test_an_inconclusive_result_names_the_command_as_code(tmp_path, make_result):
    result = make_result(verdicts=("inconclusive", "none"))
    result["checks"] = [check for check in result["checks"] if check["ok"]]
    path = write_page(result, tmp_path / "p.html")
    assert "<code>--rounds 9</code>" in path.read_text(encoding="utf-8")


def test_without_plotly_the_error_names_the_extra(monkeypatch, tmp_path, result):
    monkeypatch.setitem(sys.modules, "plotly.offline", None)
    with pytest.raises(ReportExtraMissing, match=r"pip install 'data-stall-toolkit\[report\]'"):
        write_page(result, tmp_path / "p.html")
    assert list(tmp_path.iterdir()) == []


def test_a_page_is_replaced_only_by_a_whole_one(monkeypatch, tmp_path, result):
    path = tmp_path / "p.html"
    path.write_text("old")

    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(page.os, "replace", full)
    with pytest.raises(OSError, match="No space"):
        write_page(result, path)
    assert path.read_text() == "old"
    assert [file.name for file in tmp_path.iterdir()] == ["p.html"]


def test_the_parts_of_a_bar_add_up_to_its_time(tmp_path, result):
    html = write_page(result, tmp_path / "p.html").read_text(encoding="utf-8")
    bars = re.findall(r'<div class="stack".*?</div>', html)
    lengths = [sum(map(float, re.findall(r"width:([\d.]+)%", bar))) for bar in bars]
    times = [epoch["time_s"]["value"] for epoch in result["epochs"]]
    times.append(result["steady"]["time_s"]["value"])
    assert lengths == [pytest.approx(100 * time / times[0], abs=0.05) for time in times]


def test_the_rate_chart_marks_here_and_the_knee(result):
    chart = rate_chart(result)
    (here,) = (trace for trace in chart["data"] if "you are here" in trace.get("name", ""))
    assert here["x"] == [0.65] and here["y"] == [pytest.approx(187.8, abs=1)]
    knees = [t for t in chart["data"] if t["mode"] == "markers" and t is not here]
    assert [t["y"] for t in knees] == [[400], [400]]  # min(P, G)


def test_the_wait_chart_rises_to_one_and_has_a_place_for_zero(result):
    result["passes"][0]["waits_s"][0] = 0.0
    for trace in wait_chart(result["passes"])["data"]:
        assert trace["y"] == sorted(trace["y"]) and trace["y"][-1] == 1
        assert min(trace["x"]) > 0


def test_long_runs_are_thinned_without_losing_the_slowest_step(result):
    long = result["passes"][2]
    long["steps_s"] = [0.1] * 50_000 + [7.0] + [0.1] * 50_000
    long["waits_s"] = [0.01] * 100_000
    (trace,) = (t for t in step_chart(result["passes"])["data"] if t["name"] == "fetch")
    assert len(trace["x"]) < MOST_POINTS + 20
    assert max(y for y in trace["y"] if y is not None) == 7000
    assert all(len(t["x"]) <= MOST_POINTS for t in wait_chart(result["passes"])["data"])


def test_the_comparison_shows_both_runs_and_the_prediction(compared):
    text = compared.text.replace(NBSP, " ")
    assert compared.headings[:3] == [
        "Where an epoch goes",
        "Before and after",
        "Predicted and measured",
    ]
    assert "An epoch went from 12.8 s to 6.47 s: 1.97× faster." in text
    assert "the measured speed lies inside the predicted interval" in text
