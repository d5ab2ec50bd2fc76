"""Make the files of a job for one scheduler, with its next times and all that has to be said."""

import shutil
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, tzinfo
from pathlib import Path

from bulkimg.errors import UsageError
from bulkimg.schedule import crontab, kubernetes, systemd
from bulkimg.schedule.calendar import Calendar, Unread, WrongTime, as_cron, as_systemd, is_cron, read, split_zone
from bulkimg.schedule.job import Job, Kind
from bulkimg.schedule.mark import Mark, digest_of, marked
from bulkimg.schedule.times import asked_systemd, changed_clocks, is_same_zone, machine_zone, next_times, zone_of

# What each scheduler does at a time that clocks skip or show twice: systemd-analyze calendar shows it, cron(8) says so;
# the cron library of Kubernetes says it of skipped times only.
_AT_CHANGED_CLOCKS: Mapping[tuple[Kind, str], str] = {
    ("systemd", "skipped"): "systemd leaves that start out",
    ("systemd", "twice"): "systemd starts at the first",
    ("cron", "skipped"): "cron starts it right after the change",
    ("cron", "twice"): "cron starts it once",
    ("k8s", "skipped"): "Kubernetes leaves that start out",
    ("k8s", "twice"): "Kubernetes may start it twice",
}


@dataclass(frozen=True, slots=True)
class Times:
    """When a job starts, as one scheduler writes it, and its next times."""

    text: str  # as the scheduler reads it
    zone_name: str
    zone: tzinfo
    next: tuple[datetime, ...]  # UTC
    remarks: tuple[str, ...] = ()

    @property
    def sentences(self) -> list[str]:
        """Return the next times in the scheduler's zone, and in UTC where that differs."""
        return [_shown(at, self.zone, self.zone_name) for at in self.next]


def _shown(at: datetime, zone: tzinfo, name: str) -> str:
    local = at.astimezone(zone)
    seconds = "%H:%M:%S" if at.second else "%H:%M"
    shown = f"{local.strftime(f'%a %Y-%m-%d {seconds}')} {name}"
    return shown if local.utcoffset() == at.utcoffset() else f"{shown} ({at.strftime(f'%Y-%m-%d {seconds}')} UTC)"


def read_times(
    given: str, kind: Kind, now: Callable[[], datetime] = lambda: datetime.now(UTC), machine: str | None = None
) -> Times:
    """Read `--when` for one scheduler. Raises UsageError for a time that is wrong, never comes, or is not exact there."""
    machine = machine_zone() if machine is None else machine
    try:
        return _read_times(given, kind, now(), machine)
    except WrongTime as error:
        raise UsageError(f"--when {given[:100]!r} {error}") from None


def _read_times(given: str, kind: Kind, now: datetime, machine: str) -> Times:
    time, zone_name = split_zone(given)
    zone = zone_of(zone_name or machine) if zone_name or machine else datetime.now().astimezone().tzinfo or UTC
    name = zone_name or machine
    if kind == "k8s" and not name:
        raise WrongTime("names no zone, and this machine's has no name; write one, such as 02:30 Europe/Berlin")
    if kind == "cron" and zone_name and not (machine and is_same_zone(zone_name, machine)):
        raise WrongTime(
            f"is of the zone {zone_name}, and cron starts in the zone of its machine ({machine or 'not known'}); write the "
            "time of this machine, or choose --as systemd or k8s"
        )
    unread = ""
    try:
        when: Calendar | None = read(given)
    except Unread as error:
        unread = str(error)
        if kind != "systemd":
            raise WrongTime(
                f"{error}, so it cannot be written for {kind}; write 02:30, Mon..Fri 02:30, or five fields"
            ) from None
        when = None
    if kind == "systemd":
        text, found = _for_systemd(when, unread, time, zone_name, name, zone, now)
    else:
        assert when is not None
        text, found = as_cron(when), next_times(when, zone, now)
    if not found:
        why = f": {when.why_never}" if when and when.why_never else ""
        raise WrongTime(f"never comes{why}; write a time that does, such as 02:30 or Mon..Fri 02:30")
    remarks = _about_clocks(when, zone, name, kind, now) if when else ()
    return Times(text, name, zone, tuple(found), remarks)


def _for_systemd(
    when: Calendar | None, unread: str, time: str, zone_name: str, name: str, zone: tzinfo, now: datetime
) -> tuple[str, list[datetime]]:
    """Return the calendar of the timer and its next times. `unread` is why bulkimg itself does not read it."""
    text = as_systemd(when) if when and is_cron(time) else f"{time} {zone_name}".strip()
    try:
        asked = asked_systemd(split_zone(text)[0], name, now)
    except WrongTime as error:
        raise WrongTime(f"{unread}, and {error}" if unread else str(error)) from None
    if asked is not None:
        return text, asked
    if when is None:
        raise WrongTime(
            "is more than bulkimg reads itself, and systemd-analyze is not installed here to check it; write 02:30, "
            "Mon..Fri 02:30 or *-*-01 04:00:00"
        )
    return text, next_times(when, zone, now, by_cron=False)


def _about_clocks(when: Calendar, zone: tzinfo, name: str, kind: Kind, now: datetime) -> tuple[str, ...]:
    said = {"skipped": "does not exist", "twice": "comes twice"}
    does = dict(_AT_CHANGED_CLOCKS)
    if kind == "cron" and as_cron(when).startswith("*"):  # cron(8): such jobs go by the new time
        does[kind, "skipped"], does[kind, "twice"] = "cron leaves that start out", "cron may start it twice"
    return tuple(
        f"{at:%H:%M} {said[what]} on {at:%Y-%m-%d} in {name}, when clocks change: {does[kind, what]}; a time such "
        "as 04:30, or UTC, has no such day"
        for what, at in changed_clocks(when, zone, now)
    )


# -- files --------------------------------------------------------------------------------------------------------------


def files_of(job: Job, kind: Kind, times: Times, given: str, version: str, image: str) -> dict[str, str]:
    """Return the files by their names. Raises UsageError for what the scheduler cannot hold."""
    if kind == "systemd":
        name = systemd.unit_name(job)
        texts = {f"{name}.service": systemd.service(job), f"{name}.timer": systemd.timer(job, times.text)}
    elif kind == "cron":  # run-parts(8): /etc/cron.d takes no dot
        texts = {systemd.unit_name(job): crontab.line(job, times.text, times.zone_name)}
    else:
        texts = {f"{kubernetes.object_name(job)}.yaml": kubernetes.cron_job(job, times.text, times.zone_name, image)}
    mark = Mark(str(job.path), digest_of(job.path), version, given, kind)
    return {name: marked(text, mark) for name, text in texts.items()}


def program() -> tuple[str, ...]:
    """Return how this bulkimg is started by its whole path, whatever the working directory and PATH are."""
    beside = Path(sys.executable).parent / "bulkimg"
    if beside.is_file():
        return (str(beside.absolute()),)
    found = shutil.which("bulkimg")
    if found and Path(found).resolve().parent == Path(sys.executable).resolve().parent:
        return (str(Path(found).absolute()),)
    return (str(Path(sys.executable).absolute()), "-m", "bulkimg")
