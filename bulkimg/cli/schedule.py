"""`bulkimg schedule`: files that start a job at its times, for systemd, cron or Kubernetes."""

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, cast

import typer

from bulkimg import __version__
from bulkimg.cli import complete, screen
from bulkimg.cli.options import SPEECH, CommandContext, Flags, user_path, with_options
from bulkimg.errors import UsageError
from bulkimg.schedule.access import User, find_user, owner_of
from bulkimg.schedule.checks import read_job
from bulkimg.schedule.install import (
    Places,
    Written,
    install,
    listed,
    of_job,
    refuse_without_systemd,
    remove,
    verify,
    write,
)
from bulkimg.schedule.job import Job, Kind
from bulkimg.schedule.plan import Times, files_of, program, read_times
from bulkimg.values import nearest
from bulkimg.words import count

_KINDS = ("systemd", "cron", "k8s")

JobFile = Annotated[str, typer.Argument(metavar="JOB", help="A job file (.toml); with --remove also a job's name.")]
When = Annotated[
    str,
    typer.Option(
        "--when", metavar="TIME", help="02:30, Mon..Fri 02:30 (systemd), or five cron fields; a zone may follow."
    ),
]
As = Annotated[
    str,
    typer.Option("--as", metavar="KIND", help="systemd, cron or k8s.", autocompletion=complete.words(*_KINDS)),
]
UserName = Annotated[
    str, typer.Option("--user", metavar="NAME", help="The user that the job runs as.  [default: the job file's owner]")
]
Credential = Annotated[
    list[str],
    typer.Option(
        "--credential",
        metavar="NAME=PATH",
        help="File of a credential, such as password=/etc/bulkimg/password. Repeatable.",
    ),
]
Out = Annotated[
    str, typer.Option("--out", metavar="DIR", help="Write the files into this directory; with --list, look there.")
]
Image = Annotated[str, typer.Option("--image", metavar="NAME", help="The container's image for k8s.")]
Install = Annotated[bool, typer.Option("--install", help="Install and enable the units: root, and systemd only.")]
List = Annotated[bool, typer.Option("--list", help="List the files that are in place, and what has changed since.")]
Remove = Annotated[bool, typer.Option("--remove", help="Disable and remove the files of JOB.")]


@with_options(*SPEECH)
def command(
    flags: Flags,
    job: JobFile = "",
    when: When = "",
    kind: As = "",
    user: UserName = "",
    credential: Credential = [],  # noqa: B006 - Typer never changes it
    out: Out = "",
    image: Image = f"zstack-bulkimg:{__version__}",
    install_them: Install = False,
    list_them: List = False,
    remove_them: Remove = False,
) -> None:
    """Print the files, complete and checked, and the next three times. No secret is read or written."""
    as_json = CommandContext(flags).settings.json_summary
    place = user_path(out) if out else None
    if list_them:
        _list(place, as_json=as_json)
    elif remove_them:
        _remove(job, place, as_json=as_json)
    else:
        found, times, files = _made(job, when, kind, user, credential, image)
        _deliver(found, cast(Kind, kind), files, times, place, install_them=install_them, as_json=as_json)


def _made(
    job: str, when: str, kind: str, user: str, credentials: list[str], image: str
) -> tuple[Job, Times, Mapping[str, str]]:
    """Return the job, its times and its files."""
    if not job.lower().endswith(".toml"):
        raise UsageError(f"{job or 'no job'}: is not a job file, whose name ends in .toml; bulkimg init writes one")
    if not when:
        raise UsageError('--when is missing or empty: give the time, such as --when "02:30" or --when "30 2 * * *"')
    if kind not in _KINDS:
        what = (
            f"--as {kind[:40]!r} is not a scheduler{nearest(kind, _KINDS)}"
            if kind
            else "--as is missing; give systemd, cron or k8s"
        )
        raise UsageError(what)
    scheduler = cast(Kind, kind)
    path = user_path(job)
    times = read_times(when, scheduler)
    found = read_job(path, scheduler, _user(user, path, scheduler), credentials, program(), os.environ)
    return found, times, files_of(found, scheduler, times, when, __version__, image)


def _user(name: str, job: Path, kind: Kind) -> User | None:
    """Return the user that the job runs as. None: cron's own user, or Kubernetes. Raises UsageError."""
    make = "create one: sudo useradd --system --no-create-home bulkimg"
    if kind == "k8s":
        if name:
            raise UsageError("--user: the user of a container is the image's; remove --user, or edit runAsUser")
        return None
    if not name and (kind == "cron" or not job.is_file()):
        return None
    found = find_user(name) if name else owner_of(job)
    if found is None:
        raise UsageError(
            f"--user {name!r}: this machine has no such user; {make}"
            if name
            else f"{job}: has no owner here; give --user NAME"
        )
    if found.uid == 0 and not name:
        raise UsageError(f"{job}: is root's, and the job should not run as root; give --user NAME, or {make}")
    return found


def _deliver(
    job: Job,
    kind: Kind,
    files: Mapping[str, str],
    times: Times,
    place: Path | None,
    *,
    install_them: bool,
    as_json: bool,
) -> None:
    written: list[Path] = []
    if install_them:
        if kind != "systemd":
            raise UsageError(
                "--install is for --as systemd only; use --out DIR, and put the file where the scheduler reads it"
            )
        if place:
            raise UsageError("--install and --out exclude each other; keep one")
        written = install(files, job.path, Places())
    else:
        _check(kind, files)
        written = write(files, place, job.path) if place else []
    remarks = [*job.remarks, *times.remarks]
    if as_json:
        document: dict[str, object] = {
            "schema": 1,
            "exit_code": 0,
            "kind": kind,
            "job": str(job.path),
            "when": times.text,
            "zone": times.zone_name,
        }
        document |= {"next_times": [f"{at:%Y-%m-%dT%H:%M:%SZ}" for at in times.next], "remarks": remarks}
        document |= {
            "files": [{"name": name, "text": text} for name, text in files.items()],
            "written": [str(path) for path in written],
        }
        screen.out_json(document)
        return
    for path in written:
        screen.out(str(path))
    if not written:
        for name, text in files.items():
            screen.out(f"# -- {name}\n{text}" if len(files) > 1 else text.rstrip("\n"))
    for remark in remarks:
        screen.warning(remark)
    for sentence in times.sentences:
        screen.note(f"next time: {sentence}")
    screen.note(_then(job, kind, files, place, is_installed=install_them))


def _check(kind: Kind, files: Mapping[str, str]) -> None:
    """Let systemd check units where it is installed."""
    if kind != "systemd":
        return
    try:
        why = verify(files)
    except UsageError:
        screen.note("systemd-analyze is not installed here: the units are not checked by it")
        return
    if why:
        raise UsageError(f"systemd-analyze verify refuses the unit: {why}; nothing was written")


def _then(job: Job, kind: Kind, files: Mapping[str, str], place: Path | None, *, is_installed: bool) -> str:
    """Return what to do next."""
    name = next(iter(files))
    where = f"{place}/{name}" if place else name
    if kind == "systemd" and is_installed:
        return f"installed; try it now: systemctl start {name}, then journalctl -u {name}"
    if kind == "systemd":
        return "next: the same with sudo and --install checks, installs and enables them"
    if kind == "k8s":
        return f"next: make the ConfigMap and the Secret as its comments say, then kubectl apply -f {where}"
    if job.user:
        return f"next: sudo install -m 644 {where} /etc/cron.d/"
    return "next: add it with crontab -e; cron mails what a bad run prints, where mail works"


# -- what is there ------------------------------------------------------------------------------------------------------


def _places(place: Path | None) -> list[Path]:
    machine = Places()
    return [place] if place else [machine.units, machine.cron]


def _list(place: Path | None, *, as_json: bool) -> None:
    found = listed(_places(place), __version__)
    if as_json:
        screen.out_json([_document(one) for one in found])
        return
    if not found:
        screen.note(f"no files of bulkimg schedule in {' and '.join(map(str, _places(place)))}")
        return
    rows = [
        ("FILE", "WHEN", "JOB", "CHANGED"),
        *((str(one.path), one.mark.when, one.mark.job, "; ".join(one.drift) or "-") for one in found),
    ]
    screen.out(screen.table([tuple(map(screen.one_line, row)) for row in rows]))


def _document(one: Written) -> dict[str, object]:
    mark = one.mark
    return {
        "file": str(one.path), "kind": mark.kind, "job": mark.job, "when": mark.when, "version": mark.version,
        "changed": list(one.drift),
    }  # fmt: skip


def _remove(job: str, place: Path | None, *, as_json: bool) -> None:
    if not job:
        raise UsageError("--remove: name the job file, or the job's name as bulkimg schedule --list shows it")
    found = of_job(listed(_places(place), __version__), job)
    if not found:
        raise UsageError(
            f"{job}: no files of bulkimg schedule are for it; bulkimg schedule --list shows those that are there"
        )
    machine = Places()
    if place is None and any(one.path.parent == machine.units for one in found):
        refuse_without_systemd(machine)
    removed = remove(found, machine)
    if as_json:
        screen.out_json({"schema": 1, "exit_code": 0, "removed": [str(path) for path in removed]})
        return
    for path in removed:
        screen.out(f"removed {path}")
    screen.note(f"{count(len(removed), 'file')} removed")
