"""Decide which column sets which field: `--map`, `--set` and its templates, `if_` columns."""

import string
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from bulkimg.blank import is_blank, trim
from bulkimg.cells import REFUSED_MANIFEST
from bulkimg.errors import UsageError
from bulkimg.manifest.check import Checker
from bulkimg.model import FIELDS, MAY_BE_EMPTY, Problem
from bulkimg.settings import Settings
from bulkimg.values import CONDITION, Pairs, nearest

# Files of a run that are no manifests: columns by which they are known, what they are, and what to use instead.
_FILES_OF_A_RUN = (
    (
        frozenset({"status", "http_status", "attempts", "job_uuid"}),
        "the result file of a run",
        "give failed.csv or unprocessed.csv of that run, its results as .xlsx, or use bulkimg retry",
    ),
    (
        frozenset({"plan", "field", "before", "after"}),
        "the plan of a run",
        "use bulkimg apply to carry it out, or give the manifest that it was made from",
    ),
)
TARGETS = ("uuid", *FIELDS, *(f"if_{name}" for name in FIELDS))


@dataclass(frozen=True, slots=True)
class Template:
    """`{name}-2026` in parts: a literal text, and the column whose text follows (None at the end)."""

    field: str
    parts: tuple[tuple[str, str | None], ...]

    @property
    def columns(self) -> set[str]:
        return {column for _, column in self.parts if column is not None}

    @classmethod
    def parse(cls, field: str, text: str) -> "Template":
        """Parse literals and plain `{column}`s; `{{` and `}}` are braces. Raises UsageError for anything else."""
        try:
            parts = list(string.Formatter().parse(text))
        except ValueError as error:
            raise UsageError(f"--set {field}={text!r}: {error}; write {{{{ and }}}} for braces") from None
        for _, column, spec, conversion in parts:
            if column is not None and (not column or spec or conversion):
                raise UsageError(
                    f"--set {field}={text!r}: a placeholder is only a column name in braces; write {{COLUMN}}"
                )
        return cls(field, tuple((literal, column) for literal, column, _, _ in parts))

    def fill(self, texts: Mapping[str, str], empty_token: str = "") -> str:
        """Fill the template from a row. Raises KeyError with the column that the row leaves blank or empties."""
        filled = []
        for literal, column in self.parts:
            filled.append(literal)
            if column is not None:
                text = texts.get(column, "")
                if is_blank(text) or text == empty_token:
                    raise KeyError(column)
                filled.append(text)
        return "".join(filled)


Condition = Callable[[Mapping[str, str]], bool]


def parse_condition(text: str) -> tuple[str, Condition]:
    """Parse `COLUMN=VALUE`, `!=` or `~=` (with % as in the API). Returns the column and a test of a row's texts."""
    found = CONDITION.fullmatch(text)
    assert found, "the settings have checked it"
    column, operator, value = found[1].strip(), found[2], found[3]
    if operator == "~=":
        return column, lambda texts: _like(value, texts.get(column, ""))
    return column, lambda texts: (texts.get(column, "") == value) is (operator == "=")


def _like(pattern: str, text: str) -> bool:
    """Compare as SQL's LIKE with % only, in any case, by greedy search: no pattern makes it slow."""
    first, *rest = pattern.casefold().split("%")
    text = text.casefold()
    if not rest:
        return text == first
    if not text.startswith(first) or len(text) < len(first) + len(rest[-1]) or not text.endswith(rest[-1]):
        return False
    at, end = len(first), len(text) - len(rest[-1])
    for part in rest[:-1]:
        if (at := text.find(part, at, end)) < 0:
            return False
        at += len(part)
    return True


class Columns:
    """The options that concern columns, checked once, then applied to a header or to the keys of JSONL."""

    def __init__(self, settings: Settings, checker: Checker) -> None:
        self._empty_token = settings.empty_token
        self.mapped = dict(settings.map)
        self.templates = [Template.parse(field, text) for field, text in settings.set]
        self.conditions = [parse_condition(text) for text in settings.where]
        self._refuse_doubles(settings.map, settings.set)
        for template in self.templates:
            if not template.columns:
                self._check_constant(template, checker)
        self.mentioned = {column for template in self.templates for column in template.columns}
        self.mentioned |= {column for column, _ in self.conditions}
        self.target_column = settings.target_column
        self._target_names = settings.target_names
        self.mentioned |= {self.target_column} if self.target_column else set()
        self.look_at_texts = bool(self.mentioned)  # otherwise the other cells of a row are not needed

    @staticmethod
    def _refuse_doubles(maps: Pairs, sets: Pairs) -> None:
        for option, names in (("--map", [c for c, _ in maps]), ("--set", [f for f, _ in sets])):
            if twice := {name for name in names if names.count(name) > 1}:
                raise UsageError(f"{option}: {min(twice)} is given twice; keep one of them")

    @staticmethod
    def _check_constant(template: Template, checker: Checker) -> None:
        text = template.fill({})
        if is_blank(text):
            fix = f"write {checker.empty_token} to empty it" if template.field in MAY_BE_EMPTY else "give a value"
            raise UsageError(f"--set {template.field}=: a blank value leaves the field unchanged; {fix}")
        _, problems = checker.fields(0, {template.field: text}, cells=True)
        for problem in problems:
            raise UsageError(f"--set {template.field}={text!r}: {problem.message}; {problem.fix}")

    def target(self, column: str) -> str | None:
        """Return what the column sets: `uuid`, a field or `if_<field>`; "" if it is not data; None if it is unknown."""
        name = self.mapped.get(column, column)
        if name in TARGETS:
            return name
        return "" if name.startswith("_") or column in self.mentioned else None

    def file_of_a_run(self, line: int, names: Iterable[str]) -> Problem | None:
        """Return the one problem of a file that a run has written and that is no manifest, else None."""
        unknown = {name for name in names if self.target(name) is None}
        for known_by, what, fix in _FILES_OF_A_RUN:
            if known_by <= unknown:
                return Problem(line, "", "", "OTHER_FORMAT", f"is {what}, not a manifest", fix, fatal=True)
        return None

    def unknown(self, line: int, column: str) -> Problem:
        if any(char in column for char in "\uff0c\uff1b\u3001\uff5c"):
            message = "contains a full-width comma or semicolon, which does not separate columns"
            return Problem(line, column, "", "UNKNOWN_COLUMN", message, "separate the columns with a plain , or ;")
        if column == REFUSED_MANIFEST:
            message = "says why the manifest of these rows was refused as a whole"
            fix = "correct that manifest and run it, or correct the rows here and delete this column"
            return Problem(line, column, "", "UNKNOWN_COLUMN", message, fix)
        return Problem(
            line,
            column,
            "",
            "UNKNOWN_COLUMN",
            f"is not a known column{nearest(column, TARGETS[: len(FIELDS) + 1])}",
            f"rename it, map it with --map {column!r}=FIELD, or start its name with _ to ignore it",
        )

    def bind(self, line: int, header: Sequence[str]) -> tuple[list[str], list[Problem]]:
        """Return the target of each column of a header ("" for none), and what is wrong with the header."""
        problems = [
            *self._bad_names(line, header),
            *(self.unknown(line, name) for name in dict.fromkeys(header) if name and self.target(name) is None),
        ]
        targets = [self.target(name) or "" for name in header]
        named = [target for target in targets if target]
        for target in dict.fromkeys(named):
            if named.count(target) > 1 and header.count(target) < 2:
                problems.append(
                    Problem(line, target, "", "COLUMN_TWICE", "is taken from two columns", "change one --map")
                )
        if "uuid" not in named:
            fix = "add it, or name the column that holds it with --map COLUMN=uuid"
            problems.append(Problem(line, "uuid", "", "NO_UUID_COLUMN", "is missing from the header", fix))
        if not problems and not any(t in FIELDS for t in named) and not self.templates:
            fix = f"add one of {', '.join(FIELDS)}, or --set FIELD=VALUE"
            problems.append(Problem(line, "", "", "NO_FIELD_COLUMN", "no column holds a field to change", fix))
        self._refuse_missing(header)
        return targets, problems

    @staticmethod
    def _bad_names(line: int, header: Sequence[str]) -> Iterable[Problem]:
        for at, name in enumerate(header, 1):
            if not name:
                yield Problem(line, f"column {at}", "", "EMPTY_COLUMN", "has no name", "name it, or remove the column")
        for name in dict.fromkeys(name for name in header if name and header.count(name) > 1):
            yield Problem(line, name, "", "COLUMN_TWICE", "appears twice in the header", "keep one of them")

    def _refuse_missing(self, header: Sequence[str]) -> None:
        for option, columns in (
            ("--map", self.mapped.keys()),
            ("--set", {column for template in self.templates for column in template.columns}),
            ("--where", {column for column, _ in self.conditions}),
            ("target_column", {self.target_column} if self.target_column else set()),
        ):
            for column in sorted(set(columns) - set(header)):
                raise UsageError(f"{option}: the manifest has no column {column!r}{nearest(column, header)}")

    def never_seen(self, line: int, seen: set[str]) -> list[Problem]:
        """Return the columns that options name and no row has. It is for JSONL, which has no header."""
        named = {"--map": set(self.mapped), "--where": {column for column, _ in self.conditions}}
        return [
            Problem(line, column, "", "UNKNOWN_COLUMN", f"no row has this key, but {option} names it{nearest(column, sorted(seen))}",
                    f"correct {option}", fatal=True)
            for option, columns in named.items()
            for column in sorted(columns - seen)
        ]  # fmt: skip

    def target_of(self, line: int, texts: Mapping[str, str]) -> tuple[str, list[Problem]]:
        """Return the target that a row names ("" without such a column), or a problem."""
        if not self.target_column:
            return "", []
        name = trim(texts.get(self.target_column, ""))
        if name in self._target_names:
            return name, []
        message = "is not a target of the job" if name else "is blank, so the row has no target"
        fix = f"write one of {', '.join(self._target_names[:8])}, or declare [targets.NAME]"
        if found := nearest(name, self._target_names, whole=False) if name else "":
            fix = f"{found.removeprefix('; ')} {fix[0].upper()}{fix[1:]}"
        return "", [Problem(line, self.target_column, name[:60], "UNKNOWN_TARGET", message, fix)]

    def wanted(self, texts: Mapping[str, str]) -> bool:
        """Return whether `--where` selects the row."""
        return all(holds(texts) for _, holds in self.conditions)

    def apply_templates(self, line: int, texts: Mapping[str, str], asked: dict[str, Any]) -> list[Problem]:
        """Add the values of `--set` to `asked`. A template over a blank cell is a problem of the row."""
        problems = []
        for template in self.templates:
            try:
                asked[template.field] = template.fill(texts, self._empty_token)
            except KeyError as missing:
                message = f"is blank, but --set {template.field} uses it"
                problems.append(Problem(line, missing.args[0], "", "BLANK_IN_TEMPLATE", message, "fill the cell"))
        return problems
