"""Parse `--cluster`: where the workers are, and read a scheduler file."""

import ipaddress
import json
import re
from pathlib import Path
from typing import NamedTuple
from urllib.parse import urlsplit

from bulkimg.errors import UsageError

MOST_LOCAL = 256
_INSECURE = "insecure+"
_WRITE = "write local:N, tls://HOST:8786, or the path of a scheduler file"


class Place(NamedTuple):
    """Workers on this machine (`local` of them), or those of a scheduler: its address, or the file that has it.

    `insecure`: the user has asked by name for messages that others on the network can read and forge.
    """

    local: int = 0
    address: str = ""
    file: str = ""
    insecure: bool = False


def parse_cluster(value: object) -> Place:
    """Parse `local`, `local:4`, `tls://host:8786`, `insecure+tcp://host:8786`, FILE or `insecure+FILE`."""
    if isinstance(value, Place):
        return value
    text = str(value).strip()
    insecure = text.startswith(_INSECURE)
    rest = text.removeprefix(_INSECURE)
    if found := re.fullmatch(r"local(?::(\d{1,6}))?", rest, re.ASCII):
        number = int(found[1] or 2)
        if insecure or not 1 <= number <= MOST_LOCAL:
            raise ValueError(f"is not a number of local workers; write local:N, with 1 to {MOST_LOCAL}")
        return Place(local=number)
    if re.match("local($|:)", rest, re.IGNORECASE):
        raise ValueError(f"is not a number of local workers; write local:N, with 1 to {MOST_LOCAL}")
    if "://" not in rest:
        if not rest:
            raise ValueError(f"is no cluster; {_WRITE}")
        return Place(file=rest, insecure=insecure)
    return Place(address=checked_address(rest, insecure=insecure), insecure=insecure)


def cluster_beside(job: Path, value: object) -> object:
    """Return the `cluster` of a job file. The path of a scheduler file is relative to the job file."""
    try:
        place = parse_cluster(value)
    except ValueError:
        return value  # it is refused later, with its line
    return place._replace(file=str(job.parent / Path(place.file).expanduser())) if place.file else value


def checked_address(text: str, *, insecure: bool) -> str:
    """Return a scheduler's address. Raises ValueError if it is none, or is unencrypted and elsewhere."""
    try:
        url = urlsplit(text)
        host, port = url.hostname, url.port
    except ValueError:
        raise ValueError(f"is no scheduler's address; {_WRITE}") from None
    if url.scheme not in {"tls", "tcp"} or not host or not port or url.path or url.query or url.username:
        raise ValueError(f"is no scheduler's address; {_WRITE}")
    if url.scheme == "tcp" and not insecure and not is_loopback(host):
        raise ValueError(
            f"sends rows to {host} over plain tcp, where others on the network can read and forge them; use tls://, or put "
            f"{_INSECURE} before it to allow that"
        )
    return text


def scheduler_address(place: Place) -> str:
    """Return the address of a scheduler: the one that was given, or that of the file. Raises UsageError."""
    if not place.file:
        return place.address
    where = f"--cluster {place.file}"
    what = "write local:N, tls://HOST:8786, or the file that `dask scheduler --scheduler-file FILE` makes"
    try:
        address = json.loads(Path(place.file).expanduser().read_bytes())["address"]
    except OSError as error:
        raise UsageError(f"{where}: cannot be read: {error.strerror}; {what}") from None
    except RuntimeError as error:  # no home directory; or nested without end
        raise UsageError(f"{where}: {error}; {what}") from None
    except (ValueError, TypeError, LookupError):
        raise UsageError(f"{where}: is no scheduler file; {what}") from None
    try:
        return checked_address(str(address), insecure=place.insecure)
    except ValueError as error:
        raise UsageError(f"{where}: its address {str(address)[:200]!r} {error}") from None


def is_loopback(host: str) -> bool:
    """Return whether the host is this machine."""
    try:
        return host == "localhost" or ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def parse_desk(value: object) -> tuple[str, int]:
    """Parse `HOST:PORT` or `HOST`: where workers reach this process. Port 0 is a free one."""
    if isinstance(value, tuple):
        return value
    text = str(value).strip()
    found = re.fullmatch(r"(\[[0-9a-fA-F:]+\]|[A-Za-z0-9._-]+)(?::(\d{1,5}))?", text, re.ASCII)
    if not found or int(found[2] or 0) > 65535:
        raise ValueError("is no address; write HOST:PORT, such as 10.0.0.7:8790")
    return found[1].strip("[]"), int(found[2] or 0)
