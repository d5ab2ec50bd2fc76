"""Read a job for a scheduler, and refuse what would fail at the scheduled time."""

import os
import re
import shutil
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, get_args

from bulkimg.credentials import CREDENTIAL_VARIABLES, NAMES, PROFILE_KEYS, missing_parts, too_open
from bulkimg.engine.together import check_together
from bulkimg.errors import UsageError
from bulkimg.layers import (
    Layer,
    config_file,
    job_layer,
    merge,
    place,
    profile_layer,
    read_profile,
    read_toml,
    variables,
)
from bulkimg.manifest.database import sqlite_file
from bulkimg.manifest.statement import Dialect, check
from bulkimg.plugins.loading import places_of, refuse_missing
from bulkimg.schedule.access import READ, RUN, WRITE, User, refusal, this_user
from bulkimg.schedule.job import Job, Kind, file_name, parse_credentials
from bulkimg.settings import Settings

_ODD = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028\u2029]")
# Where a program without a slash is searched for: systemd.exec(5), cron(8).
_SEARCHED: Mapping[str, str] = {
    "systemd": "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
    "cron": "/usr/bin:/bin",
}


def read_job(
    path: Path,
    kind: Kind,
    user: User | None,
    credentials: Sequence[str],
    program: Sequence[str],
    environ: Mapping[str, str],
) -> Job:
    """Read and check a job. Raises UsageError with every reason why it would fail at the scheduled time."""
    whole = Path(os.path.normpath(path.absolute()))
    targets = job_layer(whole)[0].options.get("target_names", ("",))
    found: list[Job] = []
    reasons: list[str] = []
    for target in targets:
        job, secrets = _job(whole, target, kind, user, credentials, program, environ)
        found.append(job)
        said = [*_reasons(job, kind, secrets, environ)]
        reasons += [f"target {target}: {reason}" for reason in said] if target and len(targets) > 1 else said
    reasons += [*_of_targets_together(dict(zip(targets, (job.settings for job in found), strict=True)))]
    if kind != "k8s":
        reasons += [*_of_plugins(found[0].settings)]
    if reasons:
        raise UsageError("\n".join(dict.fromkeys(reasons)))
    also = tuple(path for job in found[1:] for path in job.read_paths)
    return replace(found[0], also_read=also, config=next((job.config for job in found if job.config), None))


def _job(
    whole: Path,
    target: str,
    kind: Kind,
    user: User | None,
    credentials: Sequence[str],
    program: Sequence[str],
    environ: Mapping[str, str],
) -> tuple[Job, Mapping[str, Any]]:
    """Return the job as it is for one target ("" for a job with one), and the credentials of its profile."""
    layer, profile = job_layer(whole, target)
    table = read_profile(profile, environ)
    secrets = {key: table.pop(key) for key in PROFILE_KEYS if key in table}
    settings = merge(
        layer,
        profile_layer(profile, table, environ, PROFILE_KEYS),
        Layer({"profile": profile}, str) if profile else Layer({}, str),
    )
    given = parse_credentials(credentials)
    job = Job(
        whole,
        file_name(settings.job_name or whole.stem),
        settings,
        user,
        given,
        tuple(program),
        config_file(environ).absolute() if profile else None,
        (
            *_only_here(environ),
            *_of_short_life(given),
            *_of_no_manifest(settings.manifest),
            *_of_no_manifest(sqlite_file(settings.source) if settings.source else None),
            *_of_plugins_elsewhere(settings, kind, environ),
        ),
        user or (this_user() if kind == "cron" else None),
        database=sqlite_file(settings.source) if settings.source else None,
        plugin_paths=tuple(places_of(settings.plugins)) if kind != "k8s" else (),
    )
    return job, secrets


def _reasons(job: Job, kind: Kind, secrets: Mapping[str, Any], environ: Mapping[str, str]) -> Iterator[str]:
    """Yield every reason why the job would fail."""
    yield from _of_the_target(job, kind, environ)
    yield from _of_the_manifest(job, kind)
    yield from _of_the_query(job)
    yield from _of_credentials(job, kind, secrets, environ)
    yield from _of_odd_names(job)
    yield from _of_workers(job, kind)
    if kind != "k8s":
        yield from _of_access(job, secrets)
        yield from _of_programs(job, _SEARCHED[kind], secrets)


def _of_workers(job: Job, kind: Kind) -> Iterator[str]:
    """Refuse a cluster where it cannot be reached or started."""
    place = job.settings.cluster
    if place is None:
        return
    if kind != "cron":
        what = "the unit" if kind == "systemd" else "the pod"
        yield f"cluster: {what} is closed too tightly for a cluster's workers; leave it out of the job, or start the job with cron"
    elif place.file and not Path(place.file).is_file():
        yield f"cluster: there is no scheduler file {place.file}; start the scheduler first, or correct the path"


def _only_here(environ: Mapping[str, str]) -> Iterator[str]:
    """Name the options that this shell has and the scheduled job will not have."""
    names = [name for name in variables() if environ.get(name) and name != "BULKIMG_ENDPOINT"]
    if names:
        yield f"{', '.join(names)} {'is' if len(names) == 1 else 'are'} set in this shell only; the job will run without, so write it in the job file"


def _of_short_life(given: Mapping[str, Path]) -> Iterator[str]:
    if "session" in given:
        yield "a session ends after some hours, and then the job cannot log in; an account or an access key lasts"


def _of_no_manifest(path: Path | None) -> Iterator[str]:
    if path is not None and str(path) != "-" and not _is_there(path):
        yield f"{path}: does not exist yet; until it does, the job is refused (exit 3) and sends nothing"


def _of_plugins_elsewhere(settings: Settings, kind: Kind, environ: Mapping[str, str]) -> Iterator[str]:
    if settings.plugins and kind == "k8s":
        names = ", ".join(settings.plugins)
        yield f"plugins {names}: the container has only what is in its image; build one with their packages, and give --image"
    elif settings.plugins and environ.get("PYTHONPATH"):
        yield "PYTHONPATH is set in this shell only; the job finds plugins in bulkimg's own environment, so install them there"


# -- reasons ------------------------------------------------------------------------------------------------------------


def _of_the_target(job: Job, kind: Kind, environ: Mapping[str, str]) -> Iterator[str]:
    if job.settings.dry_run:
        yield f"{place(job.path, 'run', 'dry_run')}: dry_run = true, so the job would never send anything; remove it"
    if kind == "k8s" and job.config:
        yield f"{place(job.path, 'target', 'profile')}: a profile is a file of this machine, which the container does not have; write the endpoint in [target], and give --credential NAME=PATH"
    elif kind == "k8s" and job.settings.source:
        yield f"{place(job.path, '', 'source')}: a query needs a database address, which the container does not have; export the rows to a file, or schedule it with systemd or cron"
    elif job.settings.endpoint is None:
        here = " (BULKIMG_ENDPOINT is set in this shell only)" if environ.get("BULKIMG_ENDPOINT") else ""
        yield f'{job.path}: has no endpoint{here}; add endpoint = "https://HOST:PORT" in [target]'


def _of_targets_together(targets: Mapping[str, Settings]) -> Iterator[str]:
    """Refuse targets that cannot be one campaign. One without an endpoint has its own reason."""
    try:
        check_together({name: settings for name, settings in targets.items() if name and settings.endpoint})
    except UsageError as error:
        yield str(error)


def _of_the_manifest(job: Job, kind: Kind) -> Iterator[str]:
    given = _raw(job.path, "manifest")
    where = place(job.path, "job", "manifest")
    if job.settings.manifest is None or not isinstance(given, str):
        return
    if given == "-":
        yield f"{where}: the manifest is standard input, which a scheduled job does not have; name a file"
        return
    is_inside = Path(os.path.normpath(job.folder / given)).is_relative_to(job.folder)
    if not Path(given).is_absolute() and not given.startswith("~") and not is_inside:
        yield (
            f"{where}: the manifest {given!r} is outside the job's folder, and moves with neither; write its absolute path, or "
            f"move it to {job.folder}"
        )
    elif kind == "k8s" and not is_inside:
        yield f"{where}: the manifest {given!r} is not in the job's folder, which is all that the container gets; move it to {job.folder}"


def _of_the_query(job: Job) -> Iterator[str]:
    """Refuse a query that is not there, and one that no database would take as a query."""
    if job.settings.source is None:
        return
    path = job.settings.source.sql_file
    if not _is_there(path):
        yield f"{path}: does not exist; write the query there, or correct sql_file in [source]"
        return
    try:
        text = path.read_text("utf-8-sig")
    except OSError:
        return  # who may read it is another check
    except UnicodeDecodeError:
        yield f"{path}: the query is not UTF-8; save it as UTF-8"
        return
    if all(refused := [_refused(text, dialect, str(path)) for dialect in get_args(Dialect)]):
        yield refused[0]


def _refused(text: str, dialect: Dialect, name: str) -> str:
    try:
        check(text, dialect, name)
    except UsageError as error:
        return str(error)
    return ""


def _of_plugins(settings: Settings) -> Iterator[str]:
    """Refuse a plugin that is not installed. None is imported: this may be root's process."""
    try:
        refuse_missing(settings.plugins)
    except UsageError as error:
        yield str(error)


def _raw(path: Path, key: str) -> Any:
    table = read_toml(path).get("job", {})
    return table.get(key) if isinstance(table, dict) else None


def _of_credentials(job: Job, kind: Kind, secrets: Mapping[str, Any], environ: Mapping[str, str]) -> Iterator[str]:
    in_profile = {name for name in NAMES if any(f"{name}{how}" in secrets for how in ("", "_file", "_command"))}
    kinds, missing = missing_parts({*job.credentials, *in_profile})
    option = "--credential {0}=PATH of a file that only its owner reads (chmod 600)"
    if len(kinds) > 1:
        yield f"{' and '.join(kinds)} are two kinds of credential; keep one"
    elif not kinds:
        yield _no_credentials(environ, "the profile" if job.config else "")
    elif missing == ["password"]:
        yield f"account is given and password is not: it would be asked for, and nobody types it at that time; give {option.format('password')}"
    elif missing:
        yield f"{' and '.join(missing)} is missing for {kinds[0]}; give {option.format(missing[0])}"
    for name, path in job.credentials.items():
        if kind != "k8s" and (why := _unusable(path, job.runs_as if kind == "cron" else None)):
            yield f"--credential {name}={path}: {why}"


def _no_credentials(environ: Mapping[str, str], where: str) -> str:
    here = [name for name in CREDENTIAL_VARIABLES if environ.get(name) or environ.get(f"{name}_FILE")]
    ours = [name.removeprefix("BULKIMG_").lower() for name in here] or ["account", "password"]
    fix = " ".join(
        f"--credential {name}={environ.get(f'BULKIMG_{name.upper()}_FILE') or f'/etc/bulkimg/{name}'}" for name in ours
    )
    what = (
        f"{', '.join(here)} {'is' if len(here) == 1 else 'are'} set in this shell only"
        if here
        else "no credentials are given"
    )
    also = f", and {where} has none" if where else ""
    return f"{what}{also}, so the job could not log in; write each in a file that only its owner reads (chmod 600), and give {fix}"


def _unusable(path: Path, user: User | None) -> str:
    """Return why a credential's file cannot be used. Without a user, systemd reads it as root."""
    try:
        found = path.stat()
    except PermissionError:
        return (
            ""
            if user is None
            else "cannot be looked at by you, so it is not known whether the job could read it; run this as root"
        )
    except OSError as error:
        return f"cannot be read: {error.strerror}; write the credential there (chmod 600)"
    if not path.is_file():
        return "is not a file"
    if found.st_mode & 0o007:
        return f"is readable by all users (mode {found.st_mode & 0o7777:04o}); run chmod 600 on it"
    if user is None:
        return ""
    if why := too_open(found, path, ""):
        return why
    return f"{why}; give it to that user (chown)" if (why := refusal(user, path, READ)) else ""


def _of_odd_names(job: Job) -> Iterator[str]:
    """Refuse characters that a unit, a crontab or YAML cannot hold."""
    paths = [job.path, *job.credentials.values(), *(Path(word) for word in job.program)]
    paths += [path for path in (job.runs_dir, job.config, job.settings.results, job.settings.metrics_file) if path]
    for path in paths:
        if _ODD.search(str(path)) or str(path) != str(path).strip():
            yield f"{str(path)!r}: its name has a line break, a control character or a blank at an end; rename it"


def _of_access(job: Job, secrets: Mapping[str, Any]) -> Iterator[str]:
    """Name what the job's user may not read, write or run."""
    user = job.runs_as
    if user is None:
        return
    yield from _of_reading(job, user, secrets)
    for word in job.program[:1]:
        if why := refusal(user, Path(word), RUN | READ):
            yield f"{word}: {why}; install bulkimg where every user can run it, such as /usr/local/bin or /opt"
    for path in job.written_paths:
        if not path.is_dir():
            yield f"{path}: is not there; create it: sudo install -d -o {user.name} -m 700 {path}"
        elif why := refusal(user, path, WRITE | RUN):
            yield f"{path}: {why}; give it to that user: sudo chown {user.name} {path}"


def _of_reading(job: Job, user: User, secrets: Mapping[str, Any]) -> Iterator[str]:
    named = [value for key, value in secrets.items() if key.endswith("_file") and isinstance(value, str)]
    in_profile = [Path(value).expanduser().absolute() for value in named]
    for path in (*job.secret_paths, *in_profile):
        if why := _unusable(path, user):
            yield f"{path}: {why}"
    authority = job.settings.ca_file
    if authority and not _is_there(authority):
        yield f"{authority}: does not exist; correct ca_file in [target]"
    for path in job.plugin_paths:
        if why := refusal(user, path, READ):
            yield f"{path}: {why}; install the plugin where every user can read it, as bulkimg itself"
    for path in job.read_paths:
        if path not in job.secret_paths and _is_there(path) and (why := refusal(user, path, READ)):
            yield f"{path}: {why}; allow it (chmod, chown), or choose another --user"


def _is_there(path: Path) -> bool:
    """Return whether a file exists, also where this user may not look."""
    try:
        path.stat()
    except (FileNotFoundError, NotADirectoryError):
        return False
    except OSError:
        return True
    return True


def _of_programs(job: Job, searched: str, secrets: Mapping[str, Any]) -> Iterator[str]:
    for words in _commands(job, secrets):
        program = words[0]
        if "/" not in program and shutil.which(program, path=searched) is None:
            yield f"{program}: is not in {searched}, where the scheduler searches; write its whole path"
        elif "/" in program and not _is_there(Path(program)):
            yield f"{program}: does not exist; correct its path"
        elif "/" in program and job.runs_as and (why := refusal(job.runs_as, Path(program), RUN | READ)):
            yield f"{program}: {why}; allow it (chmod, chown)"


def _commands(job: Job, secrets: Mapping[str, Any]) -> Iterator[Sequence[str]]:
    yield from job.commands
    for key, value in secrets.items():
        words = value.split() if isinstance(value, str) else value
        if key.endswith("_command") and isinstance(words, list) and words and isinstance(words[0], str):
            yield words
