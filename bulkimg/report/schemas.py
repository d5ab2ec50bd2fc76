"""Make JSON Schemas of what bulkimg reads and writes, from the models that read and write it."""

import ast
import inspect
from collections.abc import Mapping
from functools import cache
from itertools import pairwise
from typing import Any

from pydantic import TypeAdapter

from bulkimg.layers import TARGET_KEYS, job_tables
from bulkimg.manifest.jsonl import NESTED
from bulkimg.model import FIELDS, Change
from bulkimg.notifications import ENTRIES
from bulkimg.report import documents
from bulkimg.settings import Settings

NAMES: Mapping[str, str] = {
    "summary": "the end of a run: summary.json and --json",
    "status": "a run now: status --json, and each element of runs --json",
    "plan": "plan --json",
    "check": "check --json",
    "results": "results --json",
    "campaign": "the end of a campaign of several targets: --json",
    "campaign-status": "a campaign now: status --json",
    "events": "a line of standard error with --log-format json or --progress json",
    "error": "--json of a command that failed without a document of its own",
    "doctor": "doctor --json",
    "show": "show --json",
    "job": "a job file (TOML)",
    "manifest": "a line of a JSONL manifest",
}
_DIALECT = "https://json-schema.org/draft/2020-12/schema"
_MODELS: Mapping[str, Any] = {
    "summary": documents.SummaryDocument,
    "status": documents.StatusDocument,
    "plan": documents.PlanDocument,
    "check": documents.CheckDocument,
    "results": documents.ResultsDocument,
    "campaign": documents.CampaignDocument,
    "campaign-status": documents.CampaignStatusDocument,
    "events": documents.ProgressEvent | documents.SummaryEvent | documents.MessageEvent,
    "error": documents.ErrorDocument,
    "doctor": documents.DoctorDocument,
    "show": documents.ImageDocument,
}


def schema(name: str) -> dict[str, Any]:
    """Return the JSON Schema (2020-12) of one of NAMES."""
    if name == "job":
        return _job()
    if name == "manifest":
        return _manifest()
    made = TypeAdapter(_MODELS[name]).json_schema(mode="serialization")
    for part in (made, *made.get("$defs", {}).values()):
        for field, text in _descriptions().get(part.get("title", ""), {}).items():
            part["properties"][field]["description"] = text
    return {"$schema": _DIALECT, "title": f"bulkimg {name}, schema 1"} | made


@cache
def _descriptions() -> dict[str, dict[str, str]]:
    """The docstrings under the fields of each document, by the names of class and property."""
    found: dict[str, dict[str, str]] = {}
    for node in ast.parse(inspect.getsource(documents)).body:
        if isinstance(node, ast.ClassDef):
            own = found[node.name] = {}
            for base in node.bases:
                own |= found.get(ast.unparse(base), {})
            fields = getattr(documents, node.name).model_fields
            for field, text in pairwise(node.body):
                if (
                    isinstance(field, ast.AnnAssign)
                    and isinstance(text, ast.Expr)
                    and isinstance(text.value, ast.Constant)
                ):
                    name = ast.unparse(field.target)
                    own[fields[name].alias or name] = inspect.cleandoc(str(text.value.value))
    return found


def _job() -> dict[str, Any]:
    """Return the schema of a job file's tables and keys. Every value may be what a flag accepts."""
    whole = Settings.model_json_schema(mode="validation")
    options = whole["properties"]
    by_name = {field.alias or name: options[field.alias or name] for name, field in Settings.model_fields.items()}
    tables = {
        table: {
            "type": "object",
            "additionalProperties": False,
            "properties": {key: by_name[o] for key, o in keys.items()},
        }
        for table, keys in job_tables().items()
    }
    target = {
        "type": "object",
        "additionalProperties": False,
        "properties": {key: by_name[option] for key, option in TARGET_KEYS.items()},
    }
    plain = {"type": "object", "additionalProperties": {"type": ["string", "boolean", "number"]}}
    source = whole["$defs"]["SqlSource"]
    source["oneOf"] = [{"required": ["url_file"]}, {"required": ["url_command"]}]
    return {
        "$schema": _DIALECT,
        "title": "bulkimg job file, schema 1",
        "type": "object",
        "additionalProperties": False,
        "oneOf": [
            {"required": ["job"], "properties": {"job": {"required": ["manifest"]}}},
            {"required": ["source"]},
        ],
        "properties": {
            "schema": {"const": 1},
            **tables,
            "source": source,
            "map": plain,
            "set": plain,
            "targets": {"type": "object", "additionalProperties": target, "minProperties": 1},
            **{kind: options[kind] for kind in ENTRIES},
        },
        "$defs": {model.__name__: whole["$defs"][model.__name__] for model in ENTRIES.values()},
    }


def _manifest() -> dict[str, Any]:
    """Return the schema of a manifest's object, flat or with the API's nested object. Null leaves a field as it is."""
    fields = Change.model_json_schema(mode="validation")["properties"]
    properties = {**fields, **{f"if_{name}": fields[name] for name in FIELDS}}
    passed_over = {"patternProperties": {"^_": {}}, "additionalProperties": False}
    nested = {"type": ["object", "null"], "properties": properties, **passed_over}
    return {
        "$schema": _DIALECT,
        "title": "bulkimg manifest row, schema 1",
        "type": "object",
        "required": ["uuid"],
        "properties": {
            "uuid": {"type": "string", "description": "32 hexadecimal digits, with or without dashes"},
            **properties,
            **dict.fromkeys(NESTED, nested),
        },
        **passed_over,
    }
