"""Decide whether several targets can be one campaign."""

from collections.abc import Mapping
from contextlib import suppress
from ipaddress import ip_address
from pathlib import Path
from urllib.parse import urlsplit

from bulkimg.errors import UsageError
from bulkimg.settings import Settings

PLACE = "{target}"  # in --results


def check_together(targets: Mapping[str, Settings]) -> None:
    """Raise UsageError if the targets cannot be one campaign."""
    by_target: dict[str, str] = {}
    for name, settings in targets.items():
        if (other := by_target.setdefault(server_of(settings), name)) != name:
            raise UsageError(
                f"targets {other} and {name} are both {settings.target}, so its images would be changed twice; "
                "give each its own endpoint (an --endpoint or BULKIMG_ENDPOINT is for all targets)"
            )
    check_apart(targets)


def server_of(settings: Settings) -> str:
    """Return the server and context path in one spelling: `::1` is also `0:0:0:0:0:0:0:1`, and `a.b` is also `a.b.`."""
    url = urlsplit(settings.endpoint or "")
    host = (url.hostname or "").rstrip(".")
    with suppress(ValueError):
        host = ip_address(host).compressed
    return f"{url.scheme}://{host}:{url.port}{settings.base_path}"


def lock_order(targets: Mapping[str, Settings]) -> list[str]:
    """Return the targets in the order in which their runs wait for other runs.

    It is the same for every campaign, whatever its targets are called. So no two can each have what the other waits for.
    """
    return sorted(targets, key=lambda name: (server_of(targets[name]), name))


def check_apart(targets: Mapping[str, Settings]) -> None:
    """Raise UsageError if the runs of these targets would be in each other's way on this machine."""
    places: set[Path] = set()
    for name, settings in targets.items():
        if settings.metrics_listen:
            raise UsageError(
                "--metrics-listen serves one run, and a campaign has several; use --metrics-file, or name one of its runs"
            )
        if not settings.results:
            continue
        if (place := own_results(name, settings.results).absolute()) in places:
            raise UsageError(
                f"--results {settings.results}: every target would replace it; put {PLACE} into the name, such as results-{PLACE}.csv"
            )
        places.add(place)


def own_results(name: str, path: Path) -> Path:
    """Return the result file of one target."""
    return Path(str(path).replace(PLACE, name))
