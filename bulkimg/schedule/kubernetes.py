"""Write the CronJob of a job, with the claim of the volume that keeps its runs."""

import json
import re
import shlex
from pathlib import Path

from bulkimg.errors import UsageError
from bulkimg.schedule.job import Job

USER = 10001  # the user of the image (Containerfile)
LONGEST_NAME = 52  # a CronJob's name; eleven characters are added for each of its jobs
MOST_BYTES = 900_000  # in a ConfigMap, which holds 1 MiB in all
_JOB, _SECRET, _RUNS = "/job", "/credentials", "/data"


def object_name(job: Job) -> str:
    """Return the job's name as Kubernetes allows it (RFC 1123)."""
    return re.sub(r"[^a-z0-9-]+", "-", f"bulkimg-{job.name}".lower())[:LONGEST_NAME].strip("-")


def cron_job(job: Job, fields: str, zone: str, image: str) -> str:
    """Return the YAML. `zone` is a name of the time zone database. Raises UsageError for what a container cannot have."""
    files = _files(job)
    name = object_name(job)
    text = json.dumps  # a text in JSON is one in YAML
    # With fsGroup the mode of a Secret's files becomes 0440, owned by root (kubernetes/kubernetes#57923): bulkimg takes it.
    return f"""\
# The job {job.name}. First make what it needs, then: kubectl apply -f FILE
{_commands(job, files, name)}
# A volume keeps the runs, so that they can be looked at and resumed.
apiVersion: v1
kind: PersistentVolumeClaim
metadata:
  name: {name}-runs
spec:
  accessModes: [ReadWriteOnce]
  resources:
    requests:
      storage: 1Gi
---
apiVersion: batch/v1
kind: CronJob
metadata:
  name: {name}
spec:
  schedule: {text(fields)}
  timeZone: {text(zone)}
  concurrencyPolicy: Forbid
  startingDeadlineSeconds: 600
  successfulJobsHistoryLimit: 3
  failedJobsHistoryLimit: 3
  jobTemplate:
    spec:
      backoffLimit: 0
      template:
        spec:
          restartPolicy: Never
          automountServiceAccountToken: false
          enableServiceLinks: false
          securityContext:
            runAsNonRoot: true
            runAsUser: {USER}
            runAsGroup: {USER}
            fsGroup: {USER}
            seccompProfile:
              type: RuntimeDefault
          containers:
            - name: bulkimg
              image: {text(image)}
              command: {text(["bulkimg", "run", f"{_JOB}/{job.path.name}", "--yes", "--runs-dir", f"{_RUNS}/runs"])}
              workingDir: {_RUNS}
              env:
                - name: CREDENTIALS_DIRECTORY
                  value: {_SECRET}
              securityContext:
                allowPrivilegeEscalation: false
                readOnlyRootFilesystem: true
                capabilities:
                  drop: [ALL]
              volumeMounts:
                - name: job
                  mountPath: {_JOB}
                  readOnly: true
                - name: credentials
                  mountPath: {_SECRET}
                  readOnly: true
                - name: runs
                  mountPath: {_RUNS}
                - name: tmp
                  mountPath: /tmp
          volumes:
            - name: job
              configMap:
                name: {name}
                items:
{_items(files)}
            - name: credentials
              secret:
                secretName: {name}
                defaultMode: 256  # 0400
            - name: runs
              persistentVolumeClaim:
                claimName: {name}-runs
            - name: tmp
              emptyDir: {{}}
"""


def _files(job: Job) -> dict[str, Path]:
    """Return the files of the ConfigMap by their path below the job's folder. Raises UsageError."""
    settings = job.settings
    if job.runs_dir:
        raise UsageError(
            f"{job.path}: runs_dir is a directory of this machine; remove it, the CronJob has a volume for runs"
        )
    for path, option in ((settings.results, "[results] path"), (settings.metrics_file, "metrics_file")):
        if path:
            raise UsageError(
                f"{job.path}: {option} is a place of this machine; remove it: the results are in each run's directory"
            )
    if settings.hooks or settings.notify:
        raise UsageError(
            f"{job.path}: [[notify]] and [[hook]] need files and programs that the container does not have; remove them, or "
            "add what they need to the image and to the CronJob yourself"
        )
    found: dict[str, Path] = {}
    for path in job.read_paths:
        if not path.is_relative_to(job.folder):
            raise UsageError(
                f"{path}: is outside the job's folder, which is all that the container gets; move it to {job.folder}"
            )
        found[str(path.relative_to(job.folder))] = path
    size = sum(path.stat().st_size for path in found.values() if path.exists())
    if size > MOST_BYTES:
        raise UsageError(
            f"{job.path}: the job and its manifest have {size:,} bytes, and a ConfigMap holds {MOST_BYTES:,}; use a smaller "
            "manifest, or another scheduler"
        )
    return found


def _key(name: str) -> str:
    """Return a ConfigMap's key for a file."""
    return re.sub(r"[^A-Za-z0-9._-]", "-", name)


def _items(files: dict[str, Path]) -> str:
    lines = (
        f"                  - key: {json.dumps(_key(name))}\n                    path: {json.dumps(name)}"
        for name in files
    )
    return "\n".join(lines)


def _commands(job: Job, files: dict[str, Path], name: str) -> str:
    """Return the commands that make the ConfigMap and the Secret. They name files, and hold no secret."""
    of_job = " ".join(shlex.quote(f"--from-file={_key(short)}={path}") for short, path in files.items())
    of_secret = " ".join(shlex.quote(f"--from-file=bulkimg.{key}={path}") for key, path in job.credentials.items())
    return f"#   kubectl create configmap {name} {of_job}\n#   kubectl create secret generic {name} {of_secret}"
