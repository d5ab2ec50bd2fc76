"""Mistakes in [[notify]] and [[hook]]: one sentence with file and line, exit 2, and the address is never quoted."""

import json
import os
from pathlib import Path

import jsonschema
import pytest

from bulkimg.engine.create import kept_options
from bulkimg.errors import UsageError
from bulkimg.layers import environment_layer, job_layer, merge, profile_layer, read_profile
from bulkimg.report import schemas
from bulkimg.settings import Settings
from tests.conftest import Cli
from tests.notify.conftest import Job
from tests.notify.receiver import Receiver

HEAD = '[job]\nmanifest = "m.csv"\n'
ADDRESS = "https://hooks.example.org/T0/s3cr3t"

MISTAKES = {
    '[[notify]]\non = ["fialed"]\nwebhook_file = "u"': ":4: .* on contains \"fialed\", which is no event; did you mean 'failed'",
    '[[notify]]\non = "failed"\nwebhook_file = "u"': ":4: .*is not a list of events",
    f'[[notify]]\nwebhook = "{ADDRESS}"': ":4: webhook would hold an address.*name the file: webhook_file",
    f'[[notify]]\nurl = "{ADDRESS}"': ":4: url would hold an address",
    '[[notify]]\napprise = "slack://s3cr3t"': ":4: apprise would hold an address.*apprise_file",
    f'[[notify]]\nwebhook_file = "{ADDRESS}"': ":4: .*webhook_file is an address, and an address is a secret",
    '[[notify]]\nwebhook_file = "u"\nsecret = "x"': ":5: secret would hold a secret.*secret_file",
    '[[notify]]\nwebhok_file = "u"': ":4: unknown key 'webhok_file' in .*did you mean 'webhook_file'",
    '[[notify]]\nwebhook_file = "u"\nrun = ["x"]': r":5: 'run' is in \[\[notify\]\] but belongs in \[\[hook\]\]",
    "[[notify]]\nrows = 3": ":3: .*has no address",
    '[[notify]]\nwebhook_file = "u"\napprise_file = "v"': ":3: .*webhook_file and apprise_file",
    '[[notify]]\nhealthchecks_file = "u"\non = ["failed"]': ":3: .*remove on",
    '[[notify]]\nhealthchecks_file = "u"\nsecret_file = "v"': ":3: .*only signs webhooks",
    '[[notify]]\nwebhook_file = "u"\nrows = -1': ":5: .*rows = -1 is not a number of rows; write 0 to 100",
    '[[notify]]\nwebhook_file = "u"\ntimeout = "5 days"': ":5: .*is not a time; write 10s",
    '[[notify]]\nwebhook_file = "u"\ntimeout = "5m"': ":5: .*at most 60s",
    '[[notify]]\nwebhook_command = "vault kv get"': ":4: .*is one text, and no shell reads it",
    '[[notify]]\nwebhook_file = "u"\n\n[[notify]]\nwebhook_file = "v"\non = ["x"]': ":8: ",
    '[notify]\nwebhook_file = "u"': r":3: .*write \[\[notify\]\]",
    '[[hooks]]\nat = "x"': ":3: unknown table .*did you mean 'hook'",
    '[guard]\nnotify = "x"': r":4: 'notify' is in \[guard\] but is a table of its own; write \[\[notify\]\]",
    '[guard]\nwebhook_file = "x"': r":4: 'webhook_file' is in \[guard\] but belongs in \[\[notify\]\]; move it there",
    '[[hook]]\nat = "before-sned"\nrun = ["x"]': ":4: .* at = \"before-sned\" is not a point of a run; did you mean 'before-send'",
    '[[hook]]\nat = "after-run"': r":3: \[\[hook\]\] has no run",
    '[[hook]]\nat = "after-run"\nrun = "rm -rf x"': ":5: .*is one text, and no shell reads it",
    '[[hook]]\nat = "after-run"\nrun = []': ":5: .* run names no program",
    '[[hook]]\nat = "after-run"\nrun = ["x"]\non = ["failed"]': r":6: 'on' is in \[\[hook\]\] but belongs in",
}  # fmt: skip


@pytest.mark.parametrize("text", MISTAKES)
def test_a_mistake_is_named_with_file_and_line_and_without_the_address(tmp_path: Path, text: str) -> None:
    path = tmp_path / "job.toml"
    path.write_text(f"{HEAD}{text}\n")
    with pytest.raises(UsageError, match=f"job.toml{MISTAKES[text]}") as error:
        job_layer(path)
    assert "s3cr3t" not in str(error.value)
    assert "\n" not in str(error.value)


EVERYTHING = (
    "5", "-1", "1.5", "true", '""', '" "', '"x"', "[]", "[1]", '[""]', '["x", 2]', '[["x"]]', "{ a = 1 }", "2026-01-01",
    "inf", "nan", "0", '"0s"', '"-3s"', "101", '"a\\u0000b"', '"~nobodyhere/x"', '["~nobodyhere/x"]', f'"{ADDRESS}"', f'["{ADDRESS}"]',
)  # fmt: skip
KEYS = {
    ("notify", "on"): 'webhook_file = "u"',
    **{("notify", f"{way}_{how}"): "" for way in ("webhook", "apprise", "healthchecks") for how in ("file", "command")},
    **{("notify", key): 'webhook_file = "u"' for key in ("secret_file", "secret_command", "rows", "timeout")},
    ("hook", "at"): 'run = ["x"]',
    ("hook", "run"): 'at = "after-run"',
    ("hook", "timeout"): 'at = "after-run"\nrun = ["x"]',
}
FINE = {
    "rows": {"5", "0"}, "timeout": {"5", "1.5"}, "on": set[str](), "at": set[str](),
    "run": {f'["{ADDRESS}"]'}, "_command": {f'["{ADDRESS}"]'}, "_file": {'"x"', '"0s"', '"-3s"'},
}  # fmt: skip


@pytest.mark.parametrize(("kind", "key"), KEYS)
def test_every_wrong_value_of_every_key_is_one_sentence_with_its_line_and_a_fix(
    tmp_path: Path, kind: str, key: str
) -> None:
    path = tmp_path / "job.toml"
    fine = next(values for end, values in FINE.items() if key.endswith(end))
    for value in EVERYTHING:
        if value in fine or (kind, key, value) == ("hook", "timeout", "101"):
            continue
        path.write_text(f"{HEAD}[[{kind}]]\n{KEYS[kind, key]}\n{key} = {value}\n")
        line = 5 + KEYS[kind, key].count("\n")
        with pytest.raises(UsageError) as error:
            job_layer(path)
        said = str(error.value)
        assert said.startswith(f"{path}:{line}: [[{kind}]] {key}"), (value, said)
        assert "; " in said, "a fix"
        for wrong in ("s3cr3t", "\n", "\0", "  ", " = is ", "input should", "True", "datetime", "{'", "validation"):
            assert wrong not in said, (value, said)


def test_a_mistake_in_a_profile_is_named_with_file_and_line(tmp_path: Path) -> None:
    place = tmp_path / "bulkimg"
    place.mkdir()
    text = '[profile.a]\nrate = 5\n\n[[profile.a.notify]]\nwebhook_file = "u"\non = ["nver"]\n'
    (place / "config.toml").write_text(text)
    environ = {"XDG_CONFIG_HOME": str(tmp_path)}
    with pytest.raises(UsageError, match=r'config\.toml:6: .*"nver"'):
        profile_layer("a", read_profile("a", environ), environ)
    (place / "config.toml").write_text(text.replace("nver", "always"))
    settings = merge(profile_layer("a", read_profile("a", environ), environ))
    assert settings.notify[0].webhook_file == place / "u"


def test_paths_are_relative_to_the_job_file_and_a_bare_program_is_searched_for(tmp_path: Path) -> None:
    path = tmp_path / "job.toml"
    rules = '[[notify]]\nwebhook_file = "a/u"\n[[hook]]\nat = "after-run"\nrun = ["./x", "./y"]\n'
    path.write_text(f'{HEAD}{rules}[[hook]]\nat = "after-run"\nrun = ["true"]\n')
    settings = merge(job_layer(path)[0])
    assert settings.notify[0].name(1, "webhook_file") == f"{path}:4: [[notify]] webhook_file"
    assert settings.hooks[1].name(2, "run") == f"{path}:10: [[hook]] run"
    assert settings.notify[0].webhook_file == tmp_path / "a" / "u"
    assert [hook.run for hook in settings.hooks] == [(str(tmp_path / "x"), "./y"), ("true",)]


def test_rules_are_kept_with_the_run_and_come_back(tmp_path: Path) -> None:
    path = tmp_path / "job.toml"
    path.write_text(
        f'{HEAD}[[notify]]\nhealthchecks_command = ["cat", "u"]\n'
        '[[notify]]\nwebhook_file = "u"\nrows = 2\non = ["always"]\ntimeout = "2s"\n'
        '[[hook]]\nat = "before-run"\nrun = ["true"]\ntimeout = "3s"\n'
    )
    settings = merge(job_layer(path)[0])
    assert "job.toml" not in json.dumps(kept_options(settings)), "the job file may be changed or gone later"
    again = Settings.model_validate(json.loads(json.dumps(kept_options(settings))))
    assert (again.notify, again.hooks) == (settings.notify, settings.hooks)


def test_the_schema_of_a_job_file_describes_the_rules() -> None:
    schema = schemas.schema("job")
    good = {
        "job": {"manifest": "m.csv"},
        "notify": [{"on": ["failed"], "webhook_file": "u", "secret_file": "s", "rows": 3, "timeout": "5s"}],
        "hook": [{"at": "after-run", "run": ["x", "y"], "timeout": 3}],
    }
    jsonschema.validate(good, schema)
    for wrong in ({"on": ["fialed"]}, {"webhook": "x"}):
        with pytest.raises(jsonschema.ValidationError):
            jsonschema.validate({**good, "notify": [wrong]}, schema)


def test_facts_for_a_hook_are_no_options_of_a_bulkimg_that_it_starts() -> None:
    facts = {"BULKIMG_RUN_ID": "x", "BULKIMG_RATE": "3/s"}
    assert environment_layer(facts).options == {"run_id": "x", "rate": "3/s"}
    assert environment_layer({**facts, "BULKIMG_HOOK": "after-run"}).options == {"rate": "3/s"}


# -- files --------------------------------------------------------------------------------------------------------------


def refused(job: Job, sentence: str) -> None:
    """A run exits 2 with this sentence, leaves no run and sends nothing; `check` and a dry run do not look."""
    before = len(job.server.puts())
    done = job.run(code=2)
    assert sentence in done.err
    assert len(done.err.strip().splitlines()) == 1
    assert not (job.place / "runs").exists()
    assert len(job.server.puts()) == before
    assert job.cli("notify", "--test", "job.toml", code=2).err == done.err
    job.cli("check", "job.toml")
    job.run("--dry-run")


def test_an_address_that_cannot_be_used_is_refused_before_the_start(job: Job) -> None:
    job.write('[[notify]]\nwebhook_file = "hook.url"\nsecret_file = "hook.secret"\n')
    path = job.place / "hook.url"
    where = "job.toml:7: [[notify]] webhook_file"
    refused(job, f"{where}: {path} cannot be read: No such file or directory")
    path.mkdir()
    refused(job, f"{where}: {path} cannot be read: Is a directory")
    path.rmdir()
    job.secret("hook.url", ADDRESS)
    (job.place / "hook.url").chmod(0o644)
    refused(job, f"{where}: {path} is readable by all users (mode 0644); run chmod 600 on it")
    job.secret("hook.url", "nonsense secret")
    refused(job, f"{where} {path} does not hold a URL")
    job.secret("hook.url", f"{ADDRESS}\n{ADDRESS}")
    refused(job, "hook.url does not hold one line of text")
    job.secret("hook.url", ADDRESS)
    secret = job.place / "hook.secret"
    refused(job, f"job.toml:8: [[notify]] secret_file: {secret} cannot be read: No such file or directory")
    job.secret("hook.secret", "whsec_not base64!")
    refused(job, f"job.toml:8: [[notify]] secret_file {secret} begins with whsec_, but the rest is not base64")
    job.write('[[notify]]\nwebhook_command = ["false"]\n')
    refused(job, "job.toml:7: [[notify]] webhook_command: false failed: exit code 1")
    job.write('[[notify]]\nhealthchecks_file = "hook.url"\n')
    job.secret("hook.url", f"{ADDRESS}?x=1")
    refused(job, "holds a URL with ? or #")


@pytest.mark.parametrize("point", ["before-run", "before-send", "after-run"])
def test_a_hook_that_does_not_exist_is_found_before_the_start(job: Job, point: str) -> None:
    job.write(f'[[hook]]\nat = "{point}"\nrun = ["./missing"]\n')
    said = job.run(code=2).err
    path = job.place / "missing"
    assert f"job.toml:8: [[hook]] run: {path} is no such program; give the whole path of one" in said
    job.cli.write("missing", "#!/bin/sh\n")
    assert f"[[hook]] run: {path} is not executable; run chmod +x on it" in job.run(code=2).err
    path.unlink()
    path.mkdir()
    assert f"[[hook]] run: {path} is a directory; name a program" in job.run(code=2).err


def test_a_pipe_that_nobody_writes_to_is_not_waited_for(job: Job) -> None:
    job.write('[[notify]]\nwebhook_file = "hook.url"\n')
    os.mkfifo(job.place / "hook.url", 0o600)
    refused(job, "hook.url does not hold one line of text")


def test_a_plan_neither_reads_addresses_nor_runs_hooks(job: Job) -> None:
    job.write('[[notify]]\nwebhook_file = "missing"\n[[hook]]\nat = "before-run"\nrun = ["./missing"]\n')
    job.cli("plan", "job.toml")


def test_an_address_from_a_command_that_does_not_see_our_credentials(job: Job, receiver: Receiver) -> None:
    program = job.script("address", f"test -z \"$BULKIMG_SESSION\" && echo '{receiver.url}/x'")
    job.write(f'[[notify]]\non = ["always"]\nwebhook_command = ["{program}"]\n')
    job.run()
    assert [request.path for request in receiver.requests] == ["/x"]


def test_check_of_a_job_with_a_mistake_exits_2(cli: Cli) -> None:
    cli.write("m.csv", "uuid,name\n")
    cli.write("job.toml", f'{HEAD}[[notify]]\nwebhook = "{ADDRESS}"\n')
    assert "/T0/" not in cli("check", "job.toml", code=2).err
