"""The samples for array engines: as their schemas have them, and with commands that bulkimg knows."""

import importlib
import json
import re
import shlex
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import typer
from jsonschema import Draft202012Validator

from bulkimg.cli.main import app
from bulkimg.errors import Exit
from bulkimg.place import parse_cluster, parse_desk
from bulkimg.shard import parse_shard
from tests.conftest import ROOT
from tests.schedule.cronjob_schema import JOB, VOLUME_CLAIM

yaml = pytest.importorskip("yaml")
FLEET = ROOT / "samples" / "fleet"
SCRIPTS = sorted(FLEET.glob("*.sh"))
KUBERNETES = sorted(FLEET.glob("kubernetes-*.yaml"))
DASK = FLEET / "dask-cluster.yaml"
AGAIN = {5, 6}  # exit codes after which the same command finishes the run


def documents(path: Path) -> list[dict[str, Any]]:
    return list(yaml.safe_load_all(path.read_text("utf-8")))


def commands(path: Path) -> Iterator[list[str]]:
    """Yield the words of every bulkimg command of a sample, without `bulkimg`. A variable of a shell stands for 1."""
    text = path.read_text("utf-8").replace("$scheduler", "tls://host:8786")
    if path.suffix == ".sh":
        for found in re.findall(r"\bbulkimg (?:run|merge|resume) [^'|&\n]*", text):
            line = re.sub(r"\$(\w+|\{\w+\})", "1", found.partition('" ||')[0]).replace('"', "")
            yield shlex.split(line, comments=True)[1:]
    elif path.suffix == ".json":
        yield json.loads(text)["containerProperties"]["command"]
    else:
        for container in containers(documents(path)):
            words = [*container["command"], *container.get("args", [])]
            if words[0] != "dask":
                assert words[0] == "bulkimg"
                yield [str(word) for word in words[1:]]
    for found in re.findall(r"^# .*?\b(bulkimg (?:run|merge) .*)$", text, re.MULTILINE):
        yield shlex.split(found)[1:]


def containers(found: Any) -> Iterator[dict[str, Any]]:
    """Yield every container below this value."""
    if isinstance(found, list):
        for one in found:
            yield from containers(one)
    elif isinstance(found, dict):
        for key, one in found.items():
            yield from one if key == "containers" else containers(one)


@pytest.mark.parametrize("path", sorted(FLEET.iterdir()), ids=lambda path: path.name)
def test_its_commands_are_those_of_bulkimg(path: Path) -> None:
    group: Any = typer.main.get_command(app)
    context = group.make_context("bulkimg", [], resilient_parsing=True)
    said = list(commands(path))
    assert said
    for words in said:
        made = group.get_command(context, words[0]).make_context(words[0], words[1:], parent=context)
        if words[0] == "run":
            if cluster := made.params["cluster"]:
                assert parse_cluster(cluster)
                assert not made.params["desk"] or parse_desk(made.params["desk"].replace("$(POD_IP)", "10.0.0.7"))
            else:
                assert made.params["shard"].startswith("auto") or parse_shard(made.params["shard"])
            assert made.params["run_id"] == "relabel", "otherwise the same command would not resume the run"


@pytest.mark.parametrize("path", KUBERNETES, ids=lambda path: path.name)
def test_objects_are_as_the_api_has_them(path: Path) -> None:
    for found in documents(path):
        schema = VOLUME_CLAIM if found["kind"] == "PersistentVolumeClaim" else JOB
        Draft202012Validator.check_schema(schema)
        assert [error.message for error in Draft202012Validator(schema).iter_errors(found)] == []


def test_an_indexed_job_has_a_pod_for_each_shard_closed_and_alone() -> None:
    claim, job = documents(FLEET / "kubernetes-indexed-job.yaml")
    spec = job["spec"]
    assert spec["completionMode"] == "Indexed"
    assert spec["completions"] == spec["parallelism"] == spec["maxFailedIndexes"]
    pod = spec["template"]["spec"]
    (container,) = pod["containers"]
    assert f"auto/{spec['completions']}" in container["command"]
    assert pod["restartPolicy"] == "Never"
    assert pod["securityContext"]["runAsNonRoot"] is True
    assert container["securityContext"]["readOnlyRootFilesystem"] is True
    volumes = {volume["name"]: volume for volume in pod["volumes"]}
    assert volumes["credentials"]["secret"]["defaultMode"] == 0o400
    assert volumes["runs"]["persistentVolumeClaim"]["claimName"] == claim["metadata"]["name"]
    assert claim["spec"]["accessModes"] == ["ReadWriteMany"]
    assert {mount["name"] for mount in container["volumeMounts"]} == set(volumes)
    (rule,) = spec["podFailurePolicy"]["rules"]
    final = {int(code) for code in Exit if code not in AGAIN and 0 < code < 10}
    assert set(rule["onExitCodes"]["values"]) == final, "a pod is started again for what a resumed run can finish"
    assert rule["onExitCodes"]["values"] == sorted(final), "the API wants them in order"


def test_a_cluster_of_the_operator_is_closed_and_its_run_reaches_it() -> None:
    cluster, claim, job = documents(DASK)
    for found, schema in ((claim, VOLUME_CLAIM), (job, JOB)):
        assert [error.message for error in Draft202012Validator(schema).iter_errors(found)] == []
    assert (cluster["apiVersion"], cluster["kind"]) == ("kubernetes.dask.org/v1", "DaskCluster")
    name, spec = cluster["metadata"]["name"], cluster["spec"]
    assert spec["scheduler"]["service"]["selector"]["dask.org/cluster-name"] == name
    address = f"tls://{name}-scheduler.default.svc.cluster.local:8786"
    (desk,) = containers(job)
    (worker,) = containers(spec["worker"])
    assert address in desk["command"]
    assert address == worker["args"][0]
    for pod in (spec["scheduler"]["spec"], spec["worker"]["spec"], job["spec"]["template"]["spec"]):
        assert pod["securityContext"]["runAsNonRoot"] is True
        (container,) = pod["containers"]
        assert container["securityContext"]["readOnlyRootFilesystem"] is True
        assert {mount["name"] for mount in container["volumeMounts"]} == {volume["name"] for volume in pod["volumes"]}
        secrets = [volume["secret"] for volume in pod["volumes"] if "secret" in volume]
        assert {secret["defaultMode"] for secret in secrets} == {0o400}
        variables = {variable["name"]: variable.get("value") for variable in container["env"]}
        assert variables["DASK_DISTRIBUTED__COMM__REQUIRE_ENCRYPTION"] == "true"
        assert {str(path).partition("/cluster/")[0] for name, path in variables.items() if "__TLS__" in name} == {""}
    assert "bulkimg-relabel" not in str(spec["scheduler"]), "a scheduler needs no credentials"
    final = {int(code) for code in Exit if code not in AGAIN and 0 < code < 10}
    (rule,) = job["spec"]["podFailurePolicy"]["rules"]
    assert set(rule["onExitCodes"]["values"]) == final


def _of_dask(path: Path) -> Iterator[list[str]]:
    """Yield the words of every `dask` command of a sample, without `dask`."""
    if path.suffix == ".yaml":
        for container in containers(documents(path)):
            if container["command"][0] == "dask":
                yield [*container["command"][1:], *container["args"]]
        return
    for found in re.findall(r"\bdask ((?:scheduler|worker) [^&\n]*?)(?:\" .*)?&", path.read_text("utf-8")):
        yield shlex.split(re.sub(r"\$\w+", "1", found).replace('"', ""))


@pytest.mark.parametrize("path", sorted(FLEET.glob("dask-*")), ids=lambda path: path.name)
def test_commands_of_dask_have_the_options_of_dask(path: Path) -> None:
    said = list(_of_dask(path))
    assert {words[0] for words in said} == {"scheduler", "worker"}
    for words in said:
        module = importlib.import_module(f"distributed.cli.dask_{words[0]}")
        module.main.make_context(words[0], words[1:])


def test_the_merge_names_every_shard_of_the_job() -> None:
    (_, job), (merge,) = (documents(FLEET / f"kubernetes-{name}-job.yaml") for name in ("indexed", "merge"))
    count = job["spec"]["completions"]
    (container,) = merge["spec"]["template"]["spec"]["containers"]
    named = [word for word in container["command"] if word.startswith("relabel-")]
    assert named == [f"relabel-{at}-of-{count}" for at in range(1, count + 1)]
    assert not container.get("env"), "it needs neither a server nor credentials"


def test_cloud_run_starts_as_many_tasks_at_once_as_there_are() -> None:
    (job,) = documents(FLEET / "cloud-run.yaml")
    assert (job["apiVersion"], job["kind"]) == ("run.googleapis.com/v1", "Job")
    execution = job["spec"]["template"]["spec"]
    assert execution["taskCount"] == execution["parallelism"] > 1
    task = execution["template"]["spec"]
    assert task["maxRetries"] > 0
    assert {mount["name"] for mount in task["containers"][0]["volumeMounts"]} == {v["name"] for v in task["volumes"]}


def test_aws_batch_starts_again_what_can_be_resumed_and_names_no_secret() -> None:
    text = (FLEET / "aws-batch.json").read_text("utf-8")
    found = json.loads(text)
    rules = found["retryStrategy"]["evaluateOnExit"]
    again = {int(rule["onExitCode"]) for rule in rules if "onExitCode" in rule}
    assert again == {*AGAIN, 143}
    assert rules[-1] == {"onReason": "*", "action": "EXIT"}
    job = found["containerProperties"]
    assert job["readonlyRootFilesystem"] is True
    assert {mount["sourceVolume"] for mount in job["mountPoints"]} == {volume["name"] for volume in job["volumes"]}
    assert all(secret["valueFrom"].startswith("arn:aws:ssm:") for secret in job["secrets"])


@pytest.mark.parametrize("path", SCRIPTS, ids=lambda path: path.name)
def test_a_script_is_sound(path: Path) -> None:
    checks = [["bash", "-n"]] + ([["shellcheck"]] if shutil.which("shellcheck") else [])
    for check in checks:
        done = subprocess.run([*check, str(path)], capture_output=True, text=True, check=False)
        assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


@pytest.fixture
def programs(tmp_path: Path) -> Path:
    """Make a folder with programs that write down how they were called."""
    folder = tmp_path / "bin"
    folder.mkdir()
    for name, more in (("sbatch", "echo 41"), ("bulkimg", ""), ("ssh", 'shift; eval "$@"'), ("scp", "")):
        program = folder / name
        program.write_text(f'#!/bin/bash\nprintf "%s\\n" "{name} $*" >> "$CALLS"\n{more}\n')
        program.chmod(0o755)
    return folder


def called(tmp_path: Path, programs: Path, *words: str, **more: str) -> list[str]:
    calls = tmp_path / "calls"
    environment = {"PATH": f"{programs}:/usr/bin:/bin", "CALLS": str(calls), **more}
    subprocess.run(["bash", *words], cwd=tmp_path, env=environment, check=True, capture_output=True)
    return calls.read_text().splitlines()


def test_slurm_starts_an_array_and_a_merge_after_it(tmp_path: Path, programs: Path) -> None:
    script = str(FLEET / "slurm.sh")
    array, merge = called(tmp_path, programs, script)
    assert array == f"sbatch --parsable --array=1-4 {script}"
    assert "--dependency=afterany:41 --wrap=bulkimg merge runs/relabel-*-of-4 --run-id relabel" in merge
    task = called(tmp_path, programs, script, SLURM_JOB_ID="42")[-1]
    assert task == "bulkimg run m.csv --yes --shard auto/4 --run-id relabel --rate 50/s"


def test_every_machine_gets_a_shard_and_then_they_are_merged(tmp_path: Path, programs: Path) -> None:
    found = called(tmp_path, programs, str(FLEET / "run.sh"), "m.csv", "a", "b", "c")
    given = sorted(line for line in found if line.startswith("bulkimg run"))
    assert given == [
        f"bulkimg run relabel.csv --yes --shard {at}/3 --run-id relabel --rate 50/s -q" for at in (1, 2, 3)
    ]
    assert found[-1].startswith("bulkimg merge ")
