"""The reference against the code: every name of the code is on its page, and every name on a page exists."""

import ast
import contextlib
import dataclasses
import json
import re
import shlex
import sqlite3
from collections.abc import Iterable, Iterator
from functools import cache
from pathlib import Path
from typing import Any, get_args

import pytest
import typer

import bulkimg
from bulkimg import layers
from bulkimg.cli import main, screen
from bulkimg.cli.options import OPTIONS, _known_variables
from bulkimg.credentials import CREDENTIAL_VARIABLES, PROFILE_KEYS
from bulkimg.engine.steering import Steering
from bulkimg.errors import BulkimgError, Exit
from bulkimg.ledger import Ledger
from bulkimg.ledger.files import COLUMNS, FED_BACK, OURS
from bulkimg.model import CHOICES, FIELDS, Action, Event, Status
from bulkimg.notifications import ENTRIES, HOOK_VARIABLES
from bulkimg.pace import Pace
from bulkimg.query import SqlSource
from bulkimg.zstack.rules import CODES
from tests.conftest import ROOT, Cli, Server

DOCS = ROOT / "docs"
REFERENCE = ("manifest", "jobs", "credentials", "results", "exit-codes", "json", "library", "plugin-api", "limits")
EXPLANATION = ("how-a-row-travels", "outcomes", "throttling", "crash-safety", "threat-model", "benchmarks")
PAGES = (
    *(f"reference/{name}.md" for name in REFERENCE),
    *(f"explanation/{name}.md" for name in EXPLANATION),
)
OTHER_PROGRAMS = frozenset({"--parallel", "--parallel-max", "--env-file"})  # in examples of curl and docker
# Words in capitals that are no codes, in the modules that make codes.
NOT_CODES = frozenset(
    {"BEGIN", "COMMIT", "ROLLBACK", "DELETE", "GET", "POST", "PUT", "HOME", "XDG_CONFIG_HOME", "LOGNAME", "USER", "ISO"}
    | {"UEFI", "UTC", "CREDENTIALS_DIRECTORY", "HEAD", "DENY", "OTEL_SERVICE_NAME", "OTEL_RESOURCE_ATTRIBUTES"}
    | {"BIGINT", "INTEGER", "JSON", "TIMESTAMPTZ", "VARCHAR", "FFCECB", "FFFFFF", "VACUUM"}  # of databases; colours
    | {"TURN_LOST"}  # of a request that was not sent: its row waits for another turn, and nothing shows it
)
OF_THE_MANIFEST = ("manifest/", "model.py", "ledger/intake.py", "planner/undo.py")
CODE = re.compile(r"[A-Z]{3,}|[A-Z]{2,}(?:_[A-Z]+)+")
IN_SQL = re.compile(r"'([A-Z]{2,}(?:_[A-Z]+)+)'")


@cache
def text(page: str) -> str:
    return (DOCS / page).read_text("utf-8")


def section(page: str, heading: str) -> str:
    """Return the text below a heading, up to the next one of its level or above."""
    found = re.search(rf"^(#+) {re.escape(heading)}$", text(page), re.MULTILINE)
    assert found, f"{page} has no section {heading!r}"
    rest = text(page)[found.end() :]
    following = re.search(rf"^#{{1,{len(found[1])}}} ", rest, re.MULTILINE)
    return rest[: following.start()] if following else rest


def first_cells(markdown: str) -> list[str]:
    """Return the code spans or the bare cell of each table's first column, without headers."""
    named = []
    for _header, _rule, *rows in _tables(markdown):
        for row in rows:
            cell = row.split("|")[1].strip()
            named += re.findall(r"`([^`]+)`", cell) or [cell]
    return named


def _tables(markdown: str) -> list[list[str]]:
    found: list[list[str]] = [[]]
    for line in markdown.splitlines():
        if line.startswith("|"):
            found[-1].append(line)
        elif found[-1]:
            found.append([])
    return [table for table in found if table]


def spans(page: str) -> set[str]:
    """Return every code span of a page."""
    return set(re.findall(r"`([^`\n]+)`", _prose(page)))


def _prose(page: str) -> str:
    return re.sub(r"^```.*?^```", "", text(page), flags=re.MULTILINE | re.DOTALL)


def differing(named: Iterable[str], known: Iterable[str]) -> tuple[set[str], set[str]]:
    """Return (what exists and is not named, what is named and does not exist)."""
    return set(known) - set(named), set(named) - set(known)


NOTHING: tuple[set[str], set[str]] = (set(), set())


def codes_of(*places: str) -> set[str]:
    """Return the codes that all or some packages of bulkimg write: their texts in capitals."""
    found = set()
    package = ROOT / "bulkimg"
    for path in package.rglob("*.py"):
        place = path.relative_to(package).as_posix()
        if place.startswith(("sandbox/", "cli/", "pace/", "schedule/", "shard.py")) or (
            places and not place.startswith(places)
        ):
            continue
        for node in ast.walk(ast.parse(path.read_text("utf-8"))):
            if isinstance(node, ast.Constant) and isinstance(node.value, str):
                found |= {node.value} if CODE.fullmatch(node.value) else set(IN_SQL.findall(node.value))
    return {code for code in found - NOT_CODES if not code.startswith("BULKIMG_")}


# -- the code's words are on their pages --------------------------------------------------------------------------------


def test_every_field_and_its_values_are_on_the_manifests_page() -> None:
    assert differing(first_cells(section("reference/manifest.md", "Fields")), FIELDS) == NOTHING
    for values in CHOICES.values():
        assert set(values) <= spans("reference/manifest.md")


def test_every_code_is_on_a_page_and_no_other() -> None:
    """Problems and warnings are on the manifest's page, all others on the results'."""
    of_rows = {span for span in spans("reference/results.md") if CODE.fullmatch(span)}
    sections = [section("reference/manifest.md", name) for name in ("Problems", "Warnings")]
    of_manifest = {name for part in sections for name in first_cells(part) if CODE.fullmatch(name)}
    assert codes_of(*OF_THE_MANIFEST) - {"NOTHING_ASKED"} <= of_manifest  # that one is an outcome
    assert differing(of_rows | of_manifest, codes_of()) == NOTHING


def test_every_code_of_the_server_is_on_the_results_page() -> None:
    assert set(CODES) <= spans("reference/results.md")
    named = {code for page in PAGES for code in re.findall(r"\b(?:SYS|ID)\.\d{4}\b", text(page))}
    assert named <= set(CODES)


def test_every_status_is_on_the_results_page() -> None:
    assert differing(first_cells(section("reference/results.md", "Statuses")), Status) == NOTHING


def test_every_column_and_file_is_on_the_results_page() -> None:
    named = first_cells(section("reference/results.md", "Columns of results.csv and results.jsonl"))
    assert named == list(COLUMNS)
    assert {*OURS, *FED_BACK, *Action} <= spans("reference/results.md")


def test_every_exit_code_is_on_its_page() -> None:
    assert first_cells(text("reference/exit-codes.md"))[: len(Exit)] == [str(int(code)) for code in Exit]


def test_every_table_and_key_of_a_job_file_is_on_its_page() -> None:
    for table, keys in layers._JOB_KEYS.items():
        assert differing(first_cells(section("reference/jobs.md", f"`[{table}]`")), keys) == NOTHING
    for kind, model in ENTRIES.items():
        assert differing(first_cells(section("reference/jobs.md", f"`[[{kind}]]`")), model.model_fields) == NOTHING
    named = set(re.findall(r"^### `\[(\w+)\]`$", text("reference/jobs.md"), re.MULTILINE))
    assert differing(first_cells(section("reference/jobs.md", "`[source]`")), SqlSource.model_fields) == NOTHING
    assert differing(named, {*layers._JOB_KEYS, "source"}) == NOTHING


def test_every_variable_and_key_of_credentials_is_on_its_page() -> None:
    page = text("reference/credentials.md")
    for name in CREDENTIAL_VARIABLES:
        assert f"`{name}`" in page
        assert f"`{name}_FILE`" in page
    refused = {"session", "password", "access_key_secret"}  # in plain text
    named = first_cells(section("reference/credentials.md", "In a profile"))
    in_tables = [
        cell for row in re.findall(r"^\| (`.*?) \|", page, re.MULTILINE) for cell in re.findall(r"`(\w+)`", row)
    ]
    assert set(PROFILE_KEYS) - refused <= {*named, *in_tables}
    assert refused <= spans("reference/credentials.md")


def test_every_variable_is_on_a_page() -> None:
    named = {name for page in PAGES for name in re.findall(r"\bBULKIMG_[A-Z_]+[A-Z]\b", text(page))}
    assert named <= {*_known_variables(), *HOOK_VARIABLES}
    in_hooks = {name for name in HOOK_VARIABLES if not name.startswith("BULKIMG_COUNTS_")} | {"BULKIMG_COUNTS_UPDATED"}
    assert in_hooks == {
        name for name in first_cells(section("reference/jobs.md", "Variables of a hook")) if name != "…"
    }
    of_one_command = _known_variables() - set(layers.variables()) - set(CREDENTIAL_VARIABLES)
    assert {name for name in of_one_command if not name.endswith("_FILE")} <= set(
        first_cells(section("reference/jobs.md", "Environment"))
    )


def test_every_event_is_on_the_pages_of_json_and_the_library() -> None:
    events = get_args(Event)
    said = {name for kind in events if (name := kind.__name__) not in ("Settled",)}
    also = {"message", "warning", "error", "bug", "progress"}
    of_json = first_cells(section("reference/json.md", "Events on standard error"))[3:]
    assert differing(of_json, {name.lower() for name in said} | also) == NOTHING
    table = section("reference/library.md", "Events")
    assert differing(first_cells(table), [kind.__name__ for kind in events]) == NOTHING
    for kind in events:
        if kind.__name__ != "Summary":
            row = next(line for line in table.splitlines() if line.startswith(f"| `{kind.__name__}` |"))
            assert {field.name for field in dataclasses.fields(kind)} <= set(re.findall(r"`(\w+)`", row))


def test_every_public_name_is_on_the_librarys_page() -> None:
    page = text("reference/library.md")
    assert [name for name in bulkimg.__all__ if not re.search(rf"\b{name}\b", page)] == []
    named = {name for page in PAGES for name in re.findall(r"\bbulkimg\.([A-Za-z_]\w*)", _code(page))}
    assert named - {*bulkimg.__all__, "session", "account", "password"} <= {
        "access_key_id", "access_key_secret", "plugins",
    }  # fmt: skip


def _code(page: str) -> str:
    """Return what a page shows as code, without addresses and file names."""
    return "\n".join([*re.findall(r"`[^`\n]+`", text(page)), *re.findall(r"^```.*?^```", text(page), re.M | re.S)])


def test_every_error_is_on_the_librarys_page_with_its_exit_code() -> None:
    rows = {
        line.split("|")[1].strip(" `"): line
        for line in section("reference/library.md", "Errors").splitlines()
        if "|" in line
    }
    for kind in _kinds(BulkimgError):
        assert f"| {int(kind.exit_code)} |" in rows[kind.__name__], kind


def _kinds(base: type[BulkimgError]) -> Iterator[type[BulkimgError]]:
    for kind in base.__subclasses__():
        if kind.__module__ == "bulkimg.errors":
            yield kind
            yield from _kinds(kind)


def test_every_word_for_an_error_is_on_the_page_of_json() -> None:
    assert {*screen._CODES.values(), "ERROR"} <= spans("reference/json.md")


# -- documents as they are printed --------------------------------------------------------------------------------------

OPEN = frozenset({"counts", "actions", "fields", "image", "before", "after"})  # objects whose keys are data


def names_in(document: Any) -> set[str]:
    """Return every field of a document, at any depth."""
    if isinstance(document, list):
        return set().union(*(names_in(item) for item in document))
    if not isinstance(document, dict):
        return set()
    inner = (names_in(value) for name, value in document.items() if name not in OPEN)
    return set(document).union(*inner)


def test_every_field_of_a_document_is_on_the_page_of_json(cli: Cli, server: Server) -> None:
    here = cli.at(server)
    images = list(server.images())
    manifest = here.write("m.csv", f"uuid,name\n{images[0]},one\n{images[1]},NULL\n{'0' * 32},x\n")
    bad = here.write("bad.csv", "uuid,name\nnonsense,x\n")
    printed = {
        "Check": [here("check", manifest, "--json").json(), here("check", bad, "--json", code=3).json()],
        "Plan": [here("plan", manifest, "--json", code=1).json()],
        "Small documents": [here("run", manifest, "--dry-run", "--json").json()],
        "Error": [here("run", manifest, "--rate", "5x", "--json", code=2).json()],
    }
    done = here("run", manifest, "--yes", "--json", code=1)
    printed["Summary"] = [done.json(), here.summary()]
    printed["Status"] = [here("status", "--json").json(), here("runs", "--json").json()]
    server.edit(images[0], name="another")
    printed["Verify"] = [here("verify", "last", "--json", code=1).json()]
    printed["Doctor"] = [here("doctor", "--json").json()]
    printed["Show"] = [here("show", images[0], "--json").json()]
    general = {"schema", "exit_code", "run_id"}
    for heading, documents in printed.items():
        named = set(re.findall(r"`(?:error\.)?(\w+)`", section("reference/json.md", heading)))
        if heading in ("Plan", "Status"):
            named |= set(re.findall(r"`(\w+)`", section("reference/json.md", "Summary")))
        missing = set().union(*map(names_in, documents)) - named - general
        if heading == "Error":
            missing -= {"error"}
        assert missing == set(), heading


def test_lines_of_json_have_the_fields_of_the_page(cli: Cli, server: Server) -> None:
    here = cli.at(server)
    manifest = here.write("m.csv", f"uuid,name\n{list(server.images())[2]},two\n")
    done = here("run", manifest, "--yes", "--log-format", "json", "--progress", "json")
    named = {name for heading in ("Events on standard error", "Progress as JSON", "Summary")
             for name in re.findall(r"[`\"](\w+)[`\"]", section("reference/json.md", heading))}  # fmt: skip
    for line in done.err.splitlines():
        event = json.loads(line)
        assert names_in(event) <= named, event
        assert event["event"] in first_cells(section("reference/json.md", "Events on standard error"))


# -- what the pages name exists -----------------------------------------------------------------------------------------


@cache
def options() -> frozenset[str]:
    """Return every option of every command."""
    found = {name for option in OPTIONS.values() for name in option.__metadata__[0].param_decls}
    group: Any = typer.main.get_command(main.app)
    context: Any = typer.Context(group)
    for command in (group, *(group.get_command(context, name) for name in main.COMMANDS)):
        for parameter in command.get_params(typer.Context(command)):
            found |= {*parameter.opts, *parameter.secondary_opts}
    return frozenset(part for name in found for part in name.split("/"))


def unknown_options(markdown: str) -> set[str]:
    named = set(re.findall(r"(?<![\w-])--[a-z][a-z-]*[a-z]", markdown))
    return named - options() - OTHER_PROGRAMS


def unknown_commands(code: str) -> set[str]:
    named = set(re.findall(r"(?<![\w./-])bulkimg ([a-z][a-z-]*)", code))
    return named - set(main.COMMANDS)


@pytest.mark.parametrize("page", PAGES)
def test_a_page_names_no_option_and_no_command_that_does_not_exist(page: str) -> None:
    assert unknown_options(text(page)) == set()
    assert unknown_commands(_code(page)) == set()


@pytest.mark.parametrize("page", PAGES)
def test_a_page_reads_well_as_it_is(page: str) -> None:
    """`bulkimg help` prints it raw."""
    lines = text(page).splitlines()
    assert [line for line in lines if len(line) > 120] == []
    assert re.findall(r"</?[a-z]+[ >]", re.sub(r"`[^`\n]*`", "", _prose(page))) == []
    assert lines[0].startswith("# ")
    assert unlike_english(text(page)) == []


NEVER = (
    "mend", "told", "goes on", "whoever", "nobody", "somebody", "beside", "as they should be", "asks anew", "do too",
    "«", "»", "This file",
)  # fmt: skip


def unlike_english(markdown: str) -> list[str]:
    """Return the words that the documentation must not use."""
    return [word for word in NEVER if re.search(rf"(?<!\w){re.escape(word)}(?!\w)", markdown, re.IGNORECASE)]


@pytest.mark.parametrize("page", PAGES)
def test_links_lead_somewhere(page: str) -> None:
    for target, _, anchor in (link.partition("#") for link in re.findall(r"\]\(([^)\s]+)\)", text(page))):
        path = (DOCS / page).parent / target if target else DOCS / page
        assert path.is_file(), f"{page}: {target}"
        assert not anchor or anchor in anchors(path), f"{page}: #{anchor}"


def anchors(path: Path) -> set[str]:
    """Return the headings as links name them."""
    headings = re.findall(r"^#+ (.*)$", path.read_text("utf-8"), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


# -- the examples -------------------------------------------------------------------------------------------------------


def blocks(page: str, language: str) -> list[str]:
    """Return the fenced code of a page in one language."""
    return re.findall(rf"^```{language}\n(.*?)^```", text(page), re.MULTILINE | re.DOTALL)


def test_examples_of_json_python_and_toml_are_sound(tmp_path: Path) -> None:
    for page in PAGES:
        for block in blocks(page, "json"):
            assert all(json.loads(line) for line in block.splitlines()), page
        for block in blocks(page, "python"):
            compile(block, page, "exec")
        for block in blocks(page, "toml"):
            path = tmp_path / ".config" / "bulkimg" / "config.toml"
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(block)
            if "[job]" in block:
                settings = layers.merge(layers.job_layer(path)[0])
                assert settings.manifest is not None
                assert (ROOT / "samples" / settings.manifest.name).exists()
            for name, table in layers.read_toml(path).get("profile", {}).items():
                kept = {key: value for key, value in table.items() if key not in PROFILE_KEYS}
                layers.merge(layers.profile_layer(name, kept, {"HOME": str(tmp_path)}, PROFILE_KEYS))


def test_the_manifests_commands_end_as_the_page_says(cli: Cli) -> None:
    (cli.place / "samples").symlink_to(ROOT / "samples")
    lines = [line for block in blocks("reference/manifest.md", "sh") for line in block.splitlines()]
    assert len(lines) > 3
    for line in lines:
        said = re.search(r"# exit (\d)", line)
        cli(*shlex.split(line, comments=True)[1:], code=int(said[1]) if said else 0)


def test_queries_of_the_ledger_run_and_its_columns_are_on_the_page(tmp_path: Path) -> None:
    ledger = Ledger.create(tmp_path / "run.db")
    ledger.close()
    part = section("reference/results.md", "Query the ledger")
    with contextlib.closing(sqlite3.connect(f"file:{tmp_path}/run.db?mode=ro", uri=True)) as db:
        queries = re.findall(r'"(SELECT [^"]*)"', part)
        assert len(queries) == 5
        for query in queries:
            db.execute(query).fetchall()
        for name in ("row_text", "problem", "warning", "meta"):
            columns = {column[0] for column in db.execute(f"SELECT * FROM {name}").description}
            internal = {"settled_message", "settled_hint", "started_at", "sets_name", "name_before"}
            assert columns - internal <= set(re.findall(r"`(\w+)`", part)), name
        internal_names = next(paragraph for paragraph in part.split("\n\n") if "are internal" in paragraph)
        named = re.findall(r"`(\w+)`", internal_names.partition("are internal")[0])
        assert set(named) <= {row[0] for row in db.execute("SELECT name FROM sqlite_schema")}


def test_what_ctl_answers_is_on_the_page_of_json() -> None:
    steering = Steering(Pace(5.0, 4), print, lambda code, why: None, lambda rows: None, lambda **options: None)
    assert set(steering.status()) <= set(re.findall(r"`(\w+)`", section("reference/json.md", "Small documents")))


# -- the checks see a gap -----------------------------------------------------------------------------------------------


def test_the_checks_see_what_is_missing_and_what_is_too_much() -> None:
    table = "| status | means |\n|---|---|\n| `updated` | x |\n| `lost`, `found` | y |\n\ntext\n\n| a |\n|---|\n| 3 |\n"
    assert first_cells(table) == ["updated", "lost", "found", "3"]
    assert differing(["updated", "lost"], ["updated", "failed"]) == ({"failed"}, {"lost"})
    assert unknown_options("`--rate` and `--ratte`, curl --parallel") == {"--ratte"}
    assert unknown_commands("`bulkimg run x`, `bulkimg runn`, `import bulkimg`") == {"runn"}
    assert names_in({"a": [{"b": 1}], "counts": {"updated": 1}}) == {"a", "b", "counts"}
    assert unlike_english("It is told beside the Nobody.") == ["told", "nobody", "beside"]
    assert "BAD_UUID" in codes_of(*OF_THE_MANIFEST)
    assert {"TLS", "NO_SUCH_IMAGE", "NOTHING_ASKED"} <= codes_of()
