"""The CronJob, against a schema written from the API reference of Kubernetes 1.31 (batch/v1, core/v1)."""

import re
from typing import Any

import pytest
from jsonschema import Draft202012Validator

from tests.schedule.conftest import Job
from tests.schedule.cronjob_schema import CRON_JOB, VOLUME_CLAIM

yaml = pytest.importorskip("yaml")


def made(job: Job, when: str = "02:30 Europe/Berlin") -> tuple[str, list[dict[str, Any]]]:
    text = job.schedule("--json", kind="k8s", when=when).json()["files"][0]["text"]
    return text, list(yaml.safe_load_all(text))


def test_both_objects_are_as_the_api_has_them(job: Job) -> None:
    _, (claim, cron_job) = made(job)
    for schema, found in ((VOLUME_CLAIM, claim), (CRON_JOB, cron_job)):
        Draft202012Validator.check_schema(schema)
        assert [error.message for error in Draft202012Validator(schema).iter_errors(found)] == []


def test_the_schema_refuses_what_the_api_would(job: Job) -> None:
    _, (_, cron_job) = made(job)
    check = Draft202012Validator(CRON_JOB)
    for path, value in (
        (("spec", "concurrencyPolicy"), "forbid"),
        (("spec", "timezone"), "UTC"),
        (("spec", "jobTemplate", "spec", "template", "spec", "restartPolicy"), "Always"),
        (("metadata", "name"), "Nightly_Job"),
    ):
        broken = yaml.safe_load(yaml.safe_dump(cron_job))
        place = broken
        for key in path[:-1]:
            place = place[key]
        place[path[-1]] = value
        assert not check.is_valid(broken), path


def test_it_runs_closed_and_alone(job: Job) -> None:
    text, (claim, cron_job) = made(job)
    spec = cron_job["spec"]
    assert (spec["schedule"], spec["timeZone"]) == ("30 2 * * *", "Europe/Berlin")
    assert (spec["concurrencyPolicy"], spec["startingDeadlineSeconds"]) == ("Forbid", 600)
    assert spec["jobTemplate"]["spec"]["backoffLimit"] == 0
    pod = spec["jobTemplate"]["spec"]["template"]["spec"]
    assert pod["restartPolicy"] == "Never"
    assert pod["securityContext"]["runAsNonRoot"] is True
    assert pod["securityContext"]["runAsUser"] == pod["securityContext"]["fsGroup"] > 0
    (container,) = pod["containers"]
    assert container["securityContext"]["readOnlyRootFilesystem"] is True
    assert container["securityContext"]["capabilities"] == {"drop": ["ALL"]}
    volumes = {volume["name"]: volume for volume in pod["volumes"]}
    assert volumes["credentials"]["secret"]["defaultMode"] == 0o400
    assert volumes["runs"]["persistentVolumeClaim"]["claimName"] == claim["metadata"]["name"]
    assert {mount["name"] for mount in container["volumeMounts"]} == set(volumes)
    assert container["command"] == ["bulkimg", "run", "/job/job.toml", "--yes", "--runs-dir", "/data/runs"]
    names = {item["path"] for item in volumes["job"]["configMap"]["items"]}
    assert names == {"job.toml", "m.csv"}
    assert f"--from-file=bulkimg.password={job.cli.place}/password" in text


@pytest.mark.parametrize(
    ("more", "why"),
    [
        ('[run]\nruns_dir = "kept"\n', "volume for runs"),
        ('[results]\npath = "r.csv"\n', "place of this machine"),
        ('[[hook]]\nat = "after-run"\nrun = ["true"]\n', "container does not have"),
    ],
)
def test_what_a_container_does_not_have_is_refused(job: Job, more: str, why: str) -> None:
    job.write(more)
    assert why in job.schedule(kind="k8s", code=2).err


def test_a_manifest_that_no_config_map_holds_is_refused(job: Job) -> None:
    job.cli.write("m.csv", "uuid,name\n" + "x" * 1_000_000)
    assert "a ConfigMap holds" in job.schedule(kind="k8s", code=2).err


def test_texts_that_yaml_would_read_otherwise_stay_texts(job: Job) -> None:
    text = job.schedule("--json", "--image", "registry.example:5000/x: # y", kind="k8s", when="hourly UTC").json()[
        "files"
    ][0]["text"]
    _, cron_job = yaml.safe_load_all(text)
    container = cron_job["spec"]["jobTemplate"]["spec"]["template"]["spec"]["containers"][0]
    assert container["image"] == "registry.example:5000/x: # y"
    assert cron_job["spec"]["schedule"] == "0 * * * *"


def test_every_line_of_yaml_is_plain(job: Job) -> None:
    text, _ = made(job)
    assert not re.search(r"\t| $", text, re.MULTILINE)
