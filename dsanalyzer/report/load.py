"""Reads result.json and whatif.json, checked against the schema files beside this module.

The check needs no third-party package: it knows the few schema keywords our own two files use, so
the schema stays the only statement of the format.
"""

from __future__ import annotations

import json
import re
from functools import cache
from importlib import resources
from pathlib import Path
from typing import Any, cast

from dsanalyzer.report.document import Result, WhatIf

_TYPES: dict[str, type | tuple[type, ...]] = {
    "object": dict,
    "array": list,
    "string": str,
    "boolean": bool,
    "null": type(None),
}
_MADE_BY = {"result": "dsanalyzer profile", "whatif": "dsanalyzer whatif"}


class DocumentError(Exception):
    """A file is not the document it was taken for; the message says what to do."""


def load_result(path: Path | str) -> Result:
    """The result that `dsanalyzer profile` wrote to `path`.

    Raises:
        DocumentError: missing, unreadable, not JSON, not a result, or of a newer version.
    """
    return cast(Result, _load(Path(path), "result"))


def load_whatif(path: Path | str) -> WhatIf:
    """The predictions that `dsanalyzer whatif` wrote to `path`; raises as load_result."""
    return cast(WhatIf, _load(Path(path), "whatif"))


def schema(kind: str) -> dict[str, Any]:
    """The JSON Schema of "result" or "whatif" (draft 2020-12)."""
    return cast(dict[str, Any], json.loads(_schema_text(kind)))


def _load(path: Path, kind: str) -> dict[str, Any]:
    try:
        text = path.read_text(encoding="utf-8")
    except FileNotFoundError:
        raise DocumentError(
            f"{path}: no such file.\nWrite one with `{_MADE_BY[kind]}`, or check the path."
        ) from None
    except IsADirectoryError:
        raise DocumentError(f"{path}: is a folder.\nName the {kind} file in it.") from None
    except UnicodeDecodeError:
        raise DocumentError(f"{path}: not JSON (binary content).\n{_ask_for(kind)}") from None
    except OSError as error:
        raise DocumentError(
            f"{path}: cannot be read ({error.strerror}).\nCheck its permissions."
        ) from error
    try:
        document = json.loads(text, parse_constant=_refuse_constant)
    except ValueError as error:
        reason = error.msg if isinstance(error, json.JSONDecodeError) else str(error)
        line = f", line {error.lineno}" if isinstance(error, json.JSONDecodeError) else ""
        raise DocumentError(
            f"{path}: not JSON ({reason}{line}); the run that wrote it may have been cut short.\n"
            f"{_ask_for(kind)}"
        ) from None
    _check_version(path, document, kind)
    if fault := first_fault(document, schema(kind)):
        raise DocumentError(
            f"{path}: damaged {kind}: {fault}.\nWrite it anew with `{_MADE_BY[kind]}`."
        )
    return cast(dict[str, Any], document)


def _check_version(path: Path, document: Any, kind: str) -> None:
    known = schema(kind)["properties"]["schema"]["const"]
    name, version = known.rsplit("/", 1)
    found = document.get("schema") if isinstance(document, dict) else None
    if found == known:
        return
    match = re.fullmatch(r"(dsanalyzer\.\w+)/(\d+)", found) if isinstance(found, str) else None
    if match is None:
        raise DocumentError(
            f'{path}: not a dsanalyzer {kind} (no schema "{known}" in it).\n{_ask_for(kind)}'
        )
    if match[1] == "dsanalyzer.partial":
        raise DocumentError(
            f"{path}: a partial result: {document.get('reason')}.\n"
            "Nothing can be asked of it; profile again with what that says."
        )
    if match[1] != name:
        raise DocumentError(f"{path}: holds {match[1]}, not {name}.\n{_ask_for(kind)}")
    if int(match[2]) > int(version):
        raise DocumentError(
            f"{path}: written by a newer dsanalyzer (schema {found}, this one reads {known}).\n"
            "Upgrade with `pip install --upgrade data-stall-toolkit`."
        )
    raise DocumentError(
        f"{path}: schema {found} is no longer read (this one reads {known}).\n"
        f"Write it anew with `{_MADE_BY[kind]}`."
    )


def _ask_for(kind: str) -> str:
    return f"Name a file that `{_MADE_BY[kind]}` wrote."


def _refuse_constant(name: str) -> None:
    raise ValueError(f"{name} is not a JSON number")


@cache
def _schema_text(kind: str) -> str:
    file = resources.files("dsanalyzer.report") / "schema" / f"{kind}.schema.json"
    return file.read_text(encoding="utf-8")


def first_fault(document: Any, root: dict[str, Any]) -> str | None:
    """The first way in which `document` breaks schema `root`, or None.

    Knows $ref to #/$defs, const, enum, type, required, properties, items, pattern, minimum and
    maximum: what our two schemas use.
    """
    return _fault(document, root, root, "")


def _fault(value: Any, rule: dict[str, Any], root: dict[str, Any], at: str) -> str | None:
    if "$ref" in rule:
        rule = root["$defs"][rule["$ref"].removeprefix("#/$defs/")]
    if fault := _own_fault(value, rule):
        return f"{at or 'the document'} {fault}"
    if isinstance(value, dict):
        for name in rule.get("required", ()):
            if name not in value:
                return f"{_join(at, name)} is missing"
        for name, below in rule.get("properties", {}).items():
            if name in value and (fault := _fault(value[name], below, root, _join(at, name))):
                return fault
    if isinstance(value, list) and "items" in rule:
        for index, item in enumerate(value):
            if fault := _fault(item, rule["items"], root, f"{at}[{index}]"):
                return fault
    return None


def _own_fault(value: Any, rule: dict[str, Any]) -> str | None:
    if "const" in rule and value != rule["const"]:
        return f"is {value!r}, not {rule['const']!r}"
    if "enum" in rule and value not in rule["enum"]:
        return f"is {value!r}, not one of {', '.join(map(repr, rule['enum']))}"
    if "type" in rule:
        names = rule["type"] if isinstance(rule["type"], list) else [rule["type"]]
        if not any(_is(value, name) for name in names):
            return f"is {_kind(value)}, not {' or '.join(names)}"
    if isinstance(value, str) and "pattern" in rule and not re.search(rule["pattern"], value):
        return f"is {value!r}, which does not match {rule['pattern']}"
    if isinstance(value, (int, float)) and not isinstance(value, bool):
        if "minimum" in rule and value < rule["minimum"]:
            return f"is {value}, below {rule['minimum']}"
        if "maximum" in rule and value > rule["maximum"]:
            return f"is {value}, above {rule['maximum']}"
    return None


def _is(value: Any, name: str) -> bool:
    if name in ("number", "integer"):  # bool is an int to Python, not to JSON
        whole = isinstance(value, int) or (isinstance(value, float) and value.is_integer())
        number = isinstance(value, (int, float)) if name == "number" else whole
        return number and not isinstance(value, bool)
    return isinstance(value, _TYPES[name])


def _kind(value: Any) -> str:
    return next((name for name in (*_TYPES, "number") if _is(value, name)), "unknown")


def _join(at: str, name: str) -> str:
    return f"{at}.{name}" if at else name
