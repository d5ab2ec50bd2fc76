"""Keep which runs belong to a campaign: `runs/<campaign>/campaign.json`, written once, before anything is sent.

The run of a target is `runs/<campaign>.<target>/`, an ordinary run. campaign.json holds names only. What the runs did is
in their ledgers.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

from bulkimg.errors import RunRefused, StorageError
from bulkimg.ledger import RunDirectory, list_runs
from bulkimg.ledger.files import write_json
from bulkimg.ledger.rundir import CAMPAIGN as FILE
from bulkimg.ledger.rundir import make_durable, make_private
from bulkimg.values import parse_run_id


class Member(NamedTuple):
    """A target and its run."""

    target: str
    run_id: str


@dataclass(frozen=True, slots=True)
class Campaign:
    """The runs of one campaign. `facts` are the other keys of campaign.json."""

    path: Path
    members: Sequence[Member]
    facts: Mapping[str, Any]

    @property
    def campaign_id(self) -> str:
        return self.path.name

    @property
    def kind(self) -> str:
        """Return run, retry or undo."""
        return str(self.facts.get("kind", "run"))

    @property
    def words(self) -> str:
        """Return the campaign's name as a command line gives it."""
        return RunDirectory(self.path).words

    def run(self, member: Member) -> RunDirectory:
        """Return the directory of a member's run. It may have been removed."""
        return RunDirectory(self.path.parent / member.run_id)

    def runs(self) -> dict[str, RunDirectory]:
        """Return the runs that exist, by target."""
        found = {member.target: self.run(member) for member in self.members}
        return {target: run for target, run in found.items() if run.ledger.is_file()}


def make_directory(runs_dir: Path, campaign_id: str) -> Path:
    """Make the directory of a new campaign. Raises RunRefused if there is a campaign or run of that name."""
    path = runs_dir / campaign_id
    try:
        make_private(path)
        make_durable(runs_dir)
    except FileExistsError:
        raise RunRefused(f"{campaign_id} already exists in {runs_dir}; choose another --run-id") from None
    except OSError as error:
        raise StorageError(
            f"{path}: cannot be created: {error.strerror}; choose another directory with --runs-dir"
        ) from None
    return path


def hold(path: Path) -> RunDirectory:
    """Lock a campaign for this process until `release` or the end of the process. Its runs have locks of their own.

    Raises RunRefused if another process is making or executing it.
    """
    return RunDirectory(path).hold("campaign")


def write(campaign: Campaign) -> None:
    """Write campaign.json. Raises StorageError."""
    targets = [member._asdict() for member in campaign.members]
    document = {"schema": 1, "campaign": campaign.campaign_id, **campaign.facts, "targets": targets}
    write_json(campaign.path / FILE, document)


def read(path: Path) -> Campaign:
    """Read the campaign of a directory. Raises StorageError if campaign.json is damaged."""
    try:
        document = json.loads((path / FILE).read_text("utf-8"))
        members = [Member(str(each["target"]), parse_run_id(each["run_id"])) for each in document["targets"]]
        if document["schema"] != 1 or not members:
            raise ValueError("it is of another version")
    except OSError as error:
        raise StorageError(f"{path / FILE}: cannot be read: {error.strerror}") from None
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        raise StorageError(
            f"{path / FILE}: is damaged ({error}); name its runs one by one: {path.name}.TARGET"
        ) from None
    return Campaign(path, members, {key: document.get(key) for key in ("kind", "of", "job", "manifest", "created_at")})


def campaign_of(directory: RunDirectory) -> Campaign | None:
    """Return the campaign that a run belongs to, or None."""
    name, dot, target = directory.run_id.rpartition(".")
    place = directory.path.parent / name
    if not dot or not (place / FILE).is_file():
        return None
    campaign = read(place)
    return campaign if Member(target, directory.run_id) in campaign.members else None


def named_campaign(runs_dir: Path, campaign_id: str) -> Campaign | None:
    """Return the campaign of exactly this id, or None. A longer id that begins with it is another campaign."""
    path = runs_dir / campaign_id
    return read(path) if (path / FILE).is_file() else None


def find_campaign(runs_dir: Path, name: str) -> Campaign | None:
    """Return the campaign that an id, the beginning of an id, a directory or `last` names, or None for a run's name."""
    if not name or (Path(name) / "run.db").is_file() or ("/" not in name and (runs_dir / name / "run.db").is_file()):
        return None
    if (Path(name) / FILE).is_file():
        return read(Path(name))
    if "/" not in name and (runs_dir / name / FILE).is_file():
        return read(runs_dir / name)
    runs = list_runs(runs_dir)
    matching = runs[-1:] if name == "last" else [run for run in runs if run.run_id.startswith(name)]
    found = [campaign_of(run) for run in matching]
    if not found or (first := found[0]) is None or any(one is None or one.path != first.path for one in found):
        return None
    is_one_run = len(matching) == 1 and name != "last" and name.startswith(f"{first.campaign_id}.")
    return None if is_one_run else first
