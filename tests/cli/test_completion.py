"""The shell completes words with the protocol of the installed script, and no completion fails."""

import os
from pathlib import Path
from typing import Any

import pytest

from bulkimg.cli.main import COMMANDS
from bulkimg.cli.options import OPTIONS
from bulkimg.model import CHOICES, FIELDS
from tests.cli.test_commands import manifest, some_images
from tests.conftest import Cli, Server


def bash(cli: Cli, *words: str, **environment: str) -> list[str]:
    """Return bash's completions of the last word."""
    line = " ".join(["bulkimg", *words])
    done = cli(_BULKIMG_COMPLETE="complete_bash", COMP_WORDS=line, COMP_CWORD=str(len(words)), code=None, **environment)
    assert done.err == ""
    return done.out.split()


def fish(cli: Cli, *words: str, **environment: str) -> dict[str, str]:
    """Return fish's completions: words with their meanings."""
    done = cli(
        _BULKIMG_COMPLETE="complete_fish",
        _TYPER_COMPLETE_ARGS=" ".join(["bulkimg", *words]),
        _TYPER_COMPLETE_FISH_ACTION="get-args",
        code=None,
        **environment,
    )
    assert done.err == ""
    pairs = (line.partition("\t") for line in done.out.splitlines())
    return {word: " ".join(text.split()) for word, _, text in pairs}


@pytest.fixture(scope="module")
def used(server: Server, tmp_path_factory: pytest.TempPathFactory) -> Cli:
    """A folder with a finished run, a planned one, and two profiles."""
    cli = Cli(tmp_path_factory.mktemp("used"))
    cli.write("m.csv", manifest(some_images(server, 2)))
    cli.write("other.csv", manifest(some_images(server, 2, 10)))
    here = cli.at(server)
    here("run", "m.csv", "--yes", "--run-id", "alpha", "--rate", "unlimited")
    here("plan", "other.csv", "--run-id", "beta", "--rate", "unlimited")
    (cli.place / "config" / "bulkimg").mkdir(parents=True)
    cli.write("config/bulkimg/config.toml", "[profile.prod]\nrate = 5\n[profile.practice]\nrate = 5\n")
    return cli


def test_commands_are_completed(used: Cli) -> None:
    assert set(bash(used, "")) == set(COMMANDS)
    assert set(bash(used, "re")) == {"report", "results", "resume", "retry"}


def test_options_are_completed(used: Cli) -> None:
    assert set(bash(used, "run", "m.csv", "--max")) == {"--max-changes", "--max-duration", "--max-errors", "--max-outage", "--max-rows"}  # fmt: skip


@pytest.mark.parametrize("command", ["status", "resume", "retry", "undo", "verify", "apply", "ctl"])
def test_run_ids_are_completed_with_their_manifest_and_state(used: Cli, command: str) -> None:
    assert set(bash(used, command, "")) == {"last", "alpha", "beta"}
    assert bash(used, command, "al") == ["alpha"]
    found = fish(used, command, "")
    assert found["last"] == "the newest run"
    assert found["alpha"].startswith("m.csv, ")
    assert found["beta"].startswith("other.csv, ")
    assert "planned" in found["beta"]
    assert "planned" not in found["alpha"]


def test_run_ids_come_from_the_runs_directory_that_is_named(used: Cli, tmp_path: Path) -> None:
    assert bash(used, "status", "al", BULKIMG_RUNS_DIR=str(tmp_path)) == []
    elsewhere = Cli(tmp_path)
    assert bash(elsewhere, "status", "al") == []
    assert bash(elsewhere, "status", "al", BULKIMG_RUNS_DIR=str(used.place / "runs")) == ["alpha"]
    assert bash(elsewhere, "status", "--runs-dir", str(used.place / "runs"), "al") == ["alpha"]


def test_fields_are_completed_before_and_after_the_equals_sign(used: Cli) -> None:
    assert set(bash(used, "run", "m.csv", "--set", "")) == {f"{name}=" for name in FIELDS}
    assert bash(used, "run", "m.csv", "--set", "plat") == ["platform="]
    assert set(bash(used, "run", "m.csv", "--map", "label=")) == {"label=uuid", *(f"label={name}" for name in FIELDS)}
    assert bash(used, "run", "m.csv", "--map", "label=plat") == ["label=platform"]


def test_values_are_completed_after_the_field(used: Cli) -> None:
    assert bash(used, "run", "m.csv", "--set", "platform=") == [f"platform={value}" for value in CHOICES["platform"]]
    assert bash(used, "run", "m.csv", "--set", "platform=Li") == ["platform=Linux"]
    assert bash(used, "run", "m.csv", "--where", "platform=Li") == ["platform=Linux"]
    assert bash(used, "run", "m.csv", "--set", "virtio=") == ["virtio=true", "virtio=false"]
    assert bash(used, "run", "m.csv", "--set", "name=") == []


def test_conditions_know_the_columns_of_every_run(used: Cli) -> None:
    assert {"uuid=", "line=", "status=", "name="} <= set(bash(used, "undo", "alpha", "--where", ""))


def test_field_names_are_completed_after_a_comma(used: Cli) -> None:
    assert bash(used, "export", "--fields", "name,plat") == ["name,platform"]


@pytest.mark.parametrize(
    ("option", "values"),
    [
        ("--format", {"csv", "tsv", "jsonl", "ndjson", "xlsx", "parquet"}),
        ("--hidden-rows", {"include", "skip"}),
        ("--progress", {"auto", "bar", "plain", "json", "none"}),
        ("--log-format", {"text", "json"}),
        ("--tags-mode", {"add", "replace"}),
        ("--tags", {"auto", "body", "api"}),
        ("--action-key", {"auto", "updateimage", "updateImage"}),
        ("--allow-field", {"architecture", "mediaType", "format"}),
    ],
)
def test_choices_are_completed(used: Cli, option: str, values: set[str]) -> None:
    assert option.removeprefix("--").replace("-", "_") in OPTIONS
    assert set(bash(used, "run", "m.csv", option, "")) == values


def test_profiles_are_completed(used: Cli) -> None:
    assert set(bash(used, "run", "m.csv", "--profile", "pr")) == {"prod", "practice"}
    assert bash(used, "doctor", "--profile", "pro") == ["prod"]
    assert fish(used, "doctor", "--profile", "")["prod"].endswith("config.toml")


def test_orders_of_ctl_are_completed(used: Cli) -> None:
    assert set(bash(used, "ctl", "alpha", "")) == {"rate=", "concurrency=", "pause", "go", "stop", "status"}
    assert bash(used, "ctl", "alpha", "ra") == ["rate="]


def test_schemas_and_topics_are_completed(used: Cli) -> None:
    assert bash(used, "schema", "su") == ["summary"]
    assert bash(used, "help", "cred") == ["credentials"]


# -- what is broken shows nothing ---------------------------------------------------------------------------------------


def _no_database(place: Path) -> None:
    (place / "runs" / "broken").mkdir(parents=True)
    (place / "runs" / "broken" / "run.db").write_bytes(b"is no database, only text" * 400)


def _empty_database(place: Path) -> None:
    (place / "runs" / "broken").mkdir(parents=True)
    (place / "runs" / "broken" / "run.db").write_bytes(b"")


def _damaged_database(place: Path) -> None:
    (place / "runs" / "broken").mkdir(parents=True)
    (place / "runs" / "broken" / "run.db").write_bytes(b"SQLite format 3\x00" + os.urandom(8192))


def _runs_is_a_file(place: Path) -> None:
    (place / "runs").write_text("no directory")


@pytest.mark.parametrize("damage", [_no_database, _empty_database, _damaged_database, _runs_is_a_file])
def test_a_broken_ledger_shows_nothing(cli: Cli, damage: Any) -> None:
    damage(cli.place)
    assert bash(cli, "status", "br") == []
    assert set(fish(cli, "status", "")) <= {"last"}


def test_one_broken_ledger_does_not_hide_the_others(used: Cli) -> None:
    place = used.place / "runs" / "zzz"
    place.mkdir()
    (place / "run.db").write_bytes(b"is no database, only text" * 400)
    try:
        assert {"alpha", "beta"} <= set(bash(used, "status", ""))
    finally:
        (place / "run.db").unlink()
        place.rmdir()


@pytest.mark.parametrize(
    "text",
    ["is not [TOML", "profile = 5\n", 'profile = ["prod"]\n', "profile = true\n", "[other]\n", "\xff\xfe"],
)
def test_a_broken_configuration_shows_no_profile(cli: Cli, text: str) -> None:
    (cli.place / "config" / "bulkimg").mkdir(parents=True)
    cli.write("config/bulkimg/config.toml", text.encode("latin-1"))
    assert bash(cli, "run", "m.csv", "--profile", "") == []


def test_completion_without_any_file_shows_nothing(cli: Cli) -> None:
    assert bash(cli, "run", "m.csv", "--profile", "") == []
    assert bash(cli, "status", "x") == []


def test_a_hostile_profile_or_manifest_name_is_no_order_to_the_terminal(cli: Cli, server: Server) -> None:
    (cli.place / "config" / "bulkimg").mkdir(parents=True)
    cli.write("config/bulkimg/config.toml", '[profile."a\\u001b[31m"]\n')
    done = cli(_BULKIMG_COMPLETE="complete_bash", COMP_WORDS="bulkimg run --profile ", COMP_CWORD="3", code=None)
    assert "\x1b" not in done.out


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_the_script_for_a_shell_is_shown(cli: Cli, shell: str) -> None:
    done = cli(_BULKIMG_COMPLETE=f"source_{shell}", code=None)
    assert "_BULKIMG_COMPLETE" in done.out
    assert f"complete_{shell}" in done.out
