"""The public names, their options and their types."""

import ast
import importlib
import inspect
import json
import pkgutil
import re
import subprocess
import sys
from pathlib import Path
from typing import get_args

import pytest

import bulkimg
from bulkimg.notifications import Hook, NotifyRule
from bulkimg.settings import Settings
from tests.conftest import ROOT

VERBS = ("run", "plan", "apply", "resume", "retry", "undo", "verify", "export", "merge")
# Options for the command line only, or set only by a job file or layers.merge.
NOT_FOR_A_CALL = {
    "progress", "json_summary", "log_format", "quiet", "verbose", "yes", "dry_run",
    "manifest", "source", "job_name", "keep", "encoding_is_configured",
    "target_names", "target_column", "every_target", "targets", "order", "stop_on_failure",
}  # fmt: skip


@pytest.mark.parametrize("name", bulkimg.__all__)
def test_every_public_name_can_be_imported(name: str) -> None:
    assert getattr(importlib.import_module("bulkimg"), name) is not None


def test_the_public_names_are_sorted_and_each_is_there_once() -> None:
    assert len(bulkimg.__all__) == len(set(bulkimg.__all__))


def test_a_name_that_does_not_exist_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        _ = bulkimg.nothing


def test_names_are_verbs_also_after_every_module_is_imported() -> None:
    """A module with a verb's name would replace the function. In a process of its own, in both orders."""
    code = """
import importlib, inspect, json, pkgutil, sys
import bulkimg
if sys.argv[1] == "before":
    first = {name: getattr(bulkimg, name) for name in bulkimg.__all__}
names = [found.name for found in pkgutil.walk_packages(bulkimg.__path__, "bulkimg.")]
for name in names:
    if not name.endswith("__main__"):
        importlib.import_module(name)
wrong = [name for name in bulkimg.__all__ if inspect.ismodule(getattr(bulkimg, name))]
wrong += [name for name in sys.argv[2:] if not inspect.isfunction(getattr(bulkimg, name))]
print(json.dumps([len(names), wrong]))
"""
    verbs = [*VERBS, *(f"a{verb}" for verb in VERBS), "open_run"]
    for order in ("before", "after"):
        done = subprocess.run(
            [sys.executable, "-c", code, order, *verbs], capture_output=True, text=True, check=True, cwd=ROOT
        )
        modules, wrong = json.loads(done.stdout)
        assert modules > 100
        assert wrong == []


def test_no_module_is_called_like_a_public_name() -> None:
    modules = {found.name for found in pkgutil.iter_modules(bulkimg.__path__)}
    assert modules & set(bulkimg.__all__) == set()


def test_the_options_are_the_settings_that_a_call_may_give() -> None:
    assert set(bulkimg.Options.__annotations__) == set(Settings.model_fields) - NOT_FOR_A_CALL
    assert set(Settings.model_fields) >= NOT_FOR_A_CALL
    assert bulkimg.Options.__required_keys__ == frozenset()


def test_the_keys_of_rules_are_those_of_a_job_file() -> None:
    assert set(bulkimg.NotifyOptions.__annotations__) == set(NotifyRule.model_fields)
    assert set(bulkimg.HookOptions.__annotations__) == set(Hook.model_fields)
    assert bulkimg.HookOptions.__required_keys__ == {
        name for name, field in Hook.model_fields.items() if field.is_required()
    }


def test_choices_are_the_same_for_types_and_for_settings() -> None:
    for name, kind in bulkimg.Options.__annotations__.items():
        if "Literal" in str(kind):
            known = Settings.model_fields[name].annotation
            words = {word for part in (known, *get_args(known)) for word in get_args(part) if isinstance(word, str)}
            assert set(get_args(kind)) == words, name


@pytest.mark.parametrize("verb", VERBS)
def test_both_forms_of_a_verb_take_the_same(verb: str) -> None:
    plain, other = (inspect.signature(getattr(bulkimg, name)) for name in (verb, f"a{verb}"))
    assert list(plain.parameters.values()) == list(other.parameters.values())
    assert inspect.iscoroutinefunction(getattr(bulkimg, f"a{verb}"))
    assert not inspect.iscoroutinefunction(getattr(bulkimg, verb))
    assert getattr(bulkimg, verb).__doc__
    assert getattr(bulkimg, f"a{verb}").__doc__


def test_the_names_for_type_checkers_are_those_at_run_time() -> None:
    tree = ast.parse((ROOT / "bulkimg" / "__init__.py").read_text("utf-8"))
    (block,) = (node for node in tree.body if isinstance(node, ast.If))
    typed = {alias.name for node in ast.walk(block) if isinstance(node, ast.ImportFrom) for alias in node.names}
    assert typed | {"__version__"} == set(bulkimg.__all__)


def test_the_page_of_the_library_names_only_what_exists() -> None:
    text = (ROOT / "docs" / "reference" / "library.md").read_text("utf-8")
    assert [name for name in re.findall(r"bulkimg\.([A-Za-z_]\w*)", text) if not hasattr(bulkimg, name)] == []
    assert [verb for verb in VERBS if f"bulkimg.{verb}(" not in text] == []


GOOD = """
import asyncio
from pathlib import Path
from uuid import UUID

import bulkimg

result: bulkimg.Result = bulkimg.run(Path("m.csv"), endpoint="http://127.0.0.1:8080", rate="20/s", concurrency=4)
result = bulkimg.run([{"uuid": UUID(int=1), "name": None}], rate=5.0, set={"platform": "Linux"}, max_errors="5%")
for row in result.rows("failed", bulkimg.Status.UNKNOWN):
    line: int = row.line
    print(line, row.uuid, row.code, row.message, row.hint)
planned = bulkimg.plan("m.csv", credentials=bulkimg.Session("s"))
if planned.plan:
    bulkimg.apply(planned.run_id, checksum=planned.plan.digest).raise_for_status()
verified: bulkimg.Verified = bulkimg.verify("last", runs_dir=Path("runs"))
rows = bulkimg.export(where=["platform=Linux"], fields=["name"], with_expectations=True)
rows[0]["name"] = "x"
merged: bulkimg.Result = bulkimg.merge([result.run_id, Path("runs/s-2-of-2")], run_id="all", partial=True)


async def approve(what: bulkimg.PlanMade | bulkimg.CanaryPassed) -> bool:
    return isinstance(what, bulkimg.PlanMade)


async def main() -> None:
    found: bulkimg.Result = await bulkimg.arun(rows, canary=5, approve=approve)
    print(found.counts["updated"])
    async with bulkimg.Run("m.csv", tags_mode="replace") as run:
        async for event in run:
            if isinstance(event, bulkimg.Settled):
                print(len(event.outcomes))
                run.pace.rate.set(5.0)
    print(run.result.ok)


asyncio.run(main())
"""
WRONG = """
import bulkimg

bulkimg.run("m.csv", concurrency="many")
bulkimg.run("m.csv", max_error="5%")
bulkimg.plan("m.csv", tags_mode="merge")
bulkimg.undo(5)
bulkimg.open_run("last").exit_code.lower()
bulkimg.run("m.csv", credentials="secret")
bulkimg.merge(["s-1-of-2"], rate="5/s")
"""


def mypy(tmp_path: Path, text: str) -> tuple[int, str]:
    script = tmp_path / "script.py"
    script.write_text(text)
    done = subprocess.run(
        [sys.executable, "-m", "mypy", "--strict", "--cache-dir", ".mypy_cache/users", str(script)],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
        timeout=110,
    )
    return done.returncode, done.stdout + done.stderr


@pytest.mark.slow
def test_a_users_script_passes_mypy_strict(tmp_path: Path) -> None:
    assert mypy(tmp_path, GOOD) == (0, "Success: no issues found in 1 source file\n")


@pytest.mark.slow
def test_mypy_finds_every_wrong_option(tmp_path: Path) -> None:
    code, said = mypy(tmp_path, WRONG)
    assert code == 1
    assert sorted({int(line) for line in re.findall(r"script\.py:(\d+): error", said)}) == [4, 5, 6, 7, 8, 9, 10], said
