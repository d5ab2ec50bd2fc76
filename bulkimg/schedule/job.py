"""Describe a job as a scheduler starts it."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from bulkimg.credentials import NAMES
from bulkimg.errors import UsageError
from bulkimg.notifications import WAYS
from bulkimg.schedule.access import User
from bulkimg.settings import Settings
from bulkimg.values import nearest

Kind = Literal["systemd", "cron", "k8s"]


@dataclass(frozen=True, slots=True)
class Job:
    """A job as a scheduler starts it. Paths are absolute."""

    path: Path
    name: str  # of the files that are written: letters, digits, - and _
    settings: Settings
    user: User | None  # None: the user whose crontab it is, or Kubernetes
    credentials: Mapping[str, Path]  # by our name, such as password
    program: tuple[str, ...]
    config: Path | None = None  # the configuration file, where a profile is used
    remarks: tuple[str, ...] = field(default=())  # what is allowed and should be known
    runs_as: User | None = None  # whose access counts: `user`, or the user whose crontab it is
    also_read: tuple[Path, ...] = ()  # files of its other targets
    database: Path | None = None  # the SQLite file that its query reads
    plugin_paths: tuple[Path, ...] = ()

    @property
    def folder(self) -> Path:
        return self.path.parent

    @property
    def runs_dir(self) -> Path | None:
        """Return where the job file or the profile puts its runs, or None."""
        return None if self.settings.runs_dir == Path("runs") else self.settings.runs_dir.absolute()

    @property
    def read_paths(self) -> list[Path]:
        """Return the files that the job reads: its own, the manifest, those of TLS and messages, the configuration file."""
        files = [self.path, self.settings.manifest, self.settings.ca_file, self.config, self.database]
        source = self.settings.source
        files += [source.sql_file] if source else []
        return [*(path.absolute() for path in files if path is not None), *self.secret_paths, *self.also_read]

    @property
    def secret_paths(self) -> list[Path]:
        """Return the files with the addresses and secrets of messages and of a database, which the job reads itself."""
        files: list[Path | None] = []
        for rule in self.settings.notify:
            files += [rule.webhook_file, rule.apprise_file, rule.healthchecks_file, rule.secret_file]
        files += [self.settings.source.url_file] if self.settings.source else []
        return [path.absolute() for path in files if path is not None]

    @property
    def written_paths(self) -> list[Path]:
        """Return the directories in which the job writes, but not one that systemd makes for it."""
        results = self.settings.results.absolute().parent if self.settings.results else None
        metrics = self.settings.metrics_file.absolute() if self.settings.metrics_file else None
        return [path for path in (self.runs_dir, results, metrics) if path is not None]

    @property
    def commands(self) -> list[Sequence[str]]:
        """Return the programs that the job starts: hooks, and commands that say addresses and secrets."""
        found: list[Sequence[str]] = [hook.run for hook in self.settings.hooks]
        found += [self.settings.source.url_command] if self.settings.source else []
        for rule in self.settings.notify:
            found += [getattr(rule, f"{way}_command") for way in (*WAYS, "secret")]
        return [words for words in found if words]

    def needs(self, *places: str) -> bool:
        """Return whether the job needs something below one of these directories, which a hardened unit hides."""
        programs = [*self.program, *(words[0] for words in self.commands)]
        paths = [*self.read_paths, *self.written_paths, *self.plugin_paths]
        paths += [Path(word) for word in programs if "/" in word]
        return any(
            found.is_relative_to(place) for path in paths for found in (path, path.resolve()) for place in places
        )


def file_name(name: str) -> str:
    """Return a job's name as file names, units and /etc/cron.d allow it. Raises UsageError if nothing is left."""
    found = re.sub(r"[^A-Za-z0-9_-]+", "-", name).strip("-")[:50]
    if not found:
        raise UsageError(
            f'the job\'s name {name[:60]!r} has no letter of a-z and no digit, which unit files need; set [job] name = "NAME"'
        )
    return found


def parse_credentials(given: Sequence[str]) -> dict[str, Path]:
    """Parse `password=/etc/bulkimg/password`. Raises UsageError."""
    found: dict[str, Path] = {}
    for text in given:
        name, equals, path = text.partition("=")
        name = name.strip().removeprefix("bulkimg.")
        if not equals or not path:
            raise UsageError(
                f"--credential {text[:60]!r} is not NAME=PATH; write one such as password=/etc/bulkimg/password"
            )
        if name not in NAMES:
            raise UsageError(f"--credential {name[:60]!r} is not a credential{nearest(name, NAMES)}")
        if name in found:
            raise UsageError(f"--credential {name} is given twice; keep one")
        if "/" not in path:  # its text may be the secret itself, so it is not shown
            raise UsageError(
                f"--credential {name}= is not a path; write the secret in a file (chmod 600), and give its whole path"
            )
        found[name] = Path(path).expanduser().absolute()
    return found
