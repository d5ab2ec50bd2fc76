"""The structure of a CronJob, a Job and a PersistentVolumeClaim, by hand from the public API reference of Kubernetes.

Only the fields that bulkimg writes are allowed, each with the type and the values of the reference.
"""

from typing import Any

Schema = dict[str, Any]
_LABEL = {"type": "string", "pattern": r"^[a-z0-9]([a-z0-9-]*[a-z0-9])?$", "maxLength": 63}
_TEXT: Schema = {"type": "string", "minLength": 1}
_ID = {"type": "integer", "minimum": 1}
_YES = {"type": "boolean"}


def _object(required: str, **fields: Schema) -> Schema:
    return {"type": "object", "properties": fields, "required": required.split(), "additionalProperties": False}


def _list(items: Schema) -> Schema:
    return {"type": "array", "items": items, "minItems": 1}


def _one_of(*values: str) -> Schema:
    return {"enum": list(values)}


_POD_SECURITY = _object(
    "runAsNonRoot",
    runAsNonRoot=_YES,
    runAsUser=_ID,
    runAsGroup=_ID,
    fsGroup=_ID,
    seccompProfile=_object("type", type=_one_of("RuntimeDefault", "Localhost", "Unconfined")),
)
_SECURITY = _object(
    "",
    allowPrivilegeEscalation=_YES,
    readOnlyRootFilesystem=_YES,
    capabilities=_object("", drop=_list(_TEXT), add=_list(_TEXT)),
)
_CONTAINER = _object(
    "name image",
    name=_LABEL,
    image=_TEXT,
    command=_list(_TEXT),
    workingDir=_TEXT,
    env=_list(
        _object(
            "name",
            name=_TEXT,
            value={"type": "string"},
            valueFrom=_object("fieldRef", fieldRef=_object("fieldPath", fieldPath=_TEXT)),
        )
    ),
    securityContext=_SECURITY,
    volumeMounts=_list(_object("name mountPath", name=_LABEL, mountPath=_TEXT, readOnly=_YES)),
)
_MODE = {"type": "integer", "minimum": 0, "maximum": 0o777}
_KEY = {"type": "string", "pattern": r"^[-._a-zA-Z0-9]+$", "maxLength": 253}
_ITEM = _object("key path", key=_KEY, path={"type": "string", "pattern": r"^(?!/)(?!.*\.\.)"})
_VOLUME: Schema = {
    "oneOf": [
        _object("name configMap", name=_LABEL, configMap=_object("name", name=_LABEL, items=_list(_ITEM))),
        _object("name secret", name=_LABEL, secret=_object("secretName", secretName=_LABEL, defaultMode=_MODE)),
        _object(
            "name persistentVolumeClaim", name=_LABEL, persistentVolumeClaim=_object("claimName", claimName=_LABEL)
        ),
        _object("name emptyDir", name=_LABEL, emptyDir=_object("")),
    ]
}
_POD = _object(
    "restartPolicy containers",
    restartPolicy=_one_of("OnFailure", "Never"),
    automountServiceAccountToken=_YES,
    enableServiceLinks=_YES,
    securityContext=_POD_SECURITY,
    containers=_list(_CONTAINER),
    volumes=_list(_VOLUME),
)
_NUMBER = {"type": "integer", "minimum": 0}
_RULE = _object(
    "action onExitCodes",
    action=_one_of("FailJob", "FailIndex", "Ignore", "Count"),
    onExitCodes=_object(
        "operator values",
        containerName=_LABEL,
        operator=_one_of("In", "NotIn"),
        values={"type": "array", "items": {"type": "integer", "not": {"const": 0}}, "uniqueItems": True, "minItems": 1},
    ),
)
_JOB = _object(
    "template",
    backoffLimit=_NUMBER,
    template=_object("spec", spec=_POD),
    completionMode=_one_of("NonIndexed", "Indexed"),
    completions=_NUMBER,
    parallelism=_NUMBER,
    backoffLimitPerIndex=_NUMBER,
    maxFailedIndexes=_NUMBER,
    podFailurePolicy=_object("rules", rules=_list(_RULE)),
)
JOB = _object(
    "apiVersion kind metadata spec",
    apiVersion=_one_of("batch/v1"),
    kind=_one_of("Job"),
    metadata=_object("name", name=_LABEL),
    spec=_JOB,
)
_FIELD = r"(\*|\d+(-\d+)?(,\d+(-\d+)?)*)(/\d+)?"
CRON_JOB = _object(
    "apiVersion kind metadata spec",
    apiVersion=_one_of("batch/v1"),
    kind=_one_of("CronJob"),
    metadata=_object("name", name={**_LABEL, "maxLength": 52}),
    spec=_object(
        "schedule jobTemplate",
        schedule={"type": "string", "pattern": rf"^{_FIELD}( {_FIELD}){{4}}$"},
        timeZone=_TEXT,
        concurrencyPolicy=_one_of("Allow", "Forbid", "Replace"),
        startingDeadlineSeconds={"type": "integer", "minimum": 10},
        successfulJobsHistoryLimit={"type": "integer", "minimum": 0},
        failedJobsHistoryLimit={"type": "integer", "minimum": 0},
        jobTemplate=_object("spec", spec=_JOB),
    ),
)
VOLUME_CLAIM = _object(
    "apiVersion kind metadata spec",
    apiVersion=_one_of("v1"),
    kind=_one_of("PersistentVolumeClaim"),
    metadata=_object("name", name=_LABEL),
    spec=_object(
        "accessModes resources",
        accessModes=_list(_one_of("ReadWriteOnce", "ReadWriteMany", "ReadOnlyMany", "ReadWriteOncePod")),
        resources=_object(
            "requests", requests=_object("storage", storage={"type": "string", "pattern": r"^\d+(Mi|Gi|Ti)$"})
        ),
    ),
)
