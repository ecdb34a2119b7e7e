"""The two schema files, and the reader that needs no schema package."""

from __future__ import annotations

import json

import jsonschema
import pytest

from dsanalyzer.report.load import DocumentError, first_fault, load_result, load_whatif, schema

BROKEN = [
    ("steady.fetch_stall_s.share",),
    ("steady.bound_by", "disk"),
    ("steady.fetch_stall_s.verdict", "maybe"),
    ("rates.S",),
    ("rates.S.value", "fast"),
    ("rates.S.unit", "MB/s"),
    ("epochs.1.time_s.low",),
    ("epochs.0.storage_bytes", 1.5),
    ("passes.3.phase", "warmup"),
    ("passes.0.resident_before", 1.2),
    ("options.cached_fraction", 65),
    ("options.rounds", True),
    ("machine.cores", 0),
    ("command", "python train.py"),
    ("command.0", 3),
    ("emulated", False),
    ("created", "yesterday"),
    ("checks.0.ok", "yes"),
    ("schema", "dsanalyzer.result/2"),
    ("notes",),
]


@pytest.mark.parametrize("kind", ["result", "whatif"])
def test_the_schema_is_a_valid_schema(kind):
    jsonschema.Draft202012Validator.check_schema(schema(kind))


def test_a_result_and_a_whatif_satisfy_their_schemas(result, after, whatif):
    for document, kind in ((result, "result"), (after, "result"), (whatif, "whatif")):
        jsonschema.validate(document, schema(kind))
        assert first_fault(document, schema(kind)) is None


@pytest.mark.parametrize("change", BROKEN, ids=lambda change: change[0])
def test_a_broken_result_is_rejected_by_the_schema_and_by_the_reader(result, edited, change):
    broken = edited(result, *change)
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate(broken, schema("result"))
    assert first_fault(broken, schema("result")) is not None


@pytest.mark.parametrize(
    "change",
    [("emulated", None), ("machine.gpu", "NVIDIA H200"), ("rates.S.value", None),
     ("options.storage_bytes_per_s", None), ("epochs.0.device_bytes", None), ("epochs", []),
     ("model", None), ("loader.batch_size", None), ("extra", {"a": 1}), ("machine.cores", 2.0)],
    ids=lambda change: change[0],
)  # fmt: skip
def test_what_may_be_absent_or_added_is_accepted_by_both(result, edited, change):
    document = edited(result, *change)
    jsonschema.validate(document, schema("result"))
    assert first_fault(document, schema("result")) is None


def test_the_fault_names_the_place(result, edited):
    broken = edited(result, "steady.fetch_stall_s.share")
    assert first_fault(broken, schema("result")) == "steady.fetch_stall_s.share is missing"
    broken = edited(result, "passes.3.phase", "warmup")
    assert first_fault(broken, schema("result")).startswith("passes[3].phase is 'warmup'")


def test_reading_gives_back_what_was_written(tmp_path, result, whatif):
    (tmp_path / "r.json").write_text(json.dumps(result))
    (tmp_path / "w.json").write_text(json.dumps(whatif))
    assert load_result(tmp_path / "r.json") == result
    assert load_whatif(tmp_path / "w.json") == whatif


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("{", "not JSON"),
        ("", "not JSON"),
        (b"\xff\xd8\xff\xe0", "not JSON"),
        ("[]", "not a dsanalyzer result"),
        ("{}", "not a dsanalyzer result"),
        ('{"schema": 3}', "not a dsanalyzer result"),
        ('{"schema": "dsanalyzer.whatif/1"}', r"holds dsanalyzer\.whatif, not dsanalyzer\.result"),
        ('{"schema": "dsanalyzer.result/7"}', "newer dsanalyzer.*\n.*pip install --upgrade"),
        ('{"schema": "dsanalyzer.result/1"}', "damaged result: created is missing"),
        ('{"schema": "dsanalyzer.result/1", "x": NaN}', "NaN is not a JSON number"),
    ],
)
def test_a_file_that_is_no_result_says_what_it_is(tmp_path, content, message):
    path = tmp_path / "result.json"
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    with pytest.raises(DocumentError, match=message) as caught:
        load_result(path)
    assert str(path) in str(caught.value)


def test_a_missing_file_and_a_folder_are_named(tmp_path):
    with pytest.raises(DocumentError, match=r"no such file.\nWrite one with `dsanalyzer profile`"):
        load_result(tmp_path / "nothing.json")
    with pytest.raises(DocumentError, match="is a folder"):
        load_whatif(tmp_path)
