"""Jobs with several targets, their manifests, and what became of the images."""

from tests.conftest import Server

ROWS = 30
NAMES = ("eu", "us", "asia")
DEAD = "http://127.0.0.1:9"


def manifest(servers: dict[str, Server], text: str) -> str:
    """Return rows for the targets in turn, with a description of this test."""
    uuids = sorted(servers["eu"].images())
    lines = [f"{uuid},{NAMES[at % 3]},{text} {at}" for at, uuid in enumerate(uuids)]
    return "\n".join(["uuid,region,description", *lines]) + "\n"


def job(urls: dict[str, str], rule: str = 'target_column = "region"', more: str = "", name: str = "nightly") -> str:
    tables = "".join(f'[targets.{target}]\nendpoint = "{url}"\n{more}' for target, url in urls.items())
    return f'[job]\nname = "{name}"\nmanifest = "m.csv"\n{rule}\n{tables}'


def table(server: Server) -> dict[str, dict[str, object]]:
    """Return the images. A text that was never there and an empty one are the same to the API."""
    return {uuid: image | {"description": image.get("description") or ""} for uuid, image in server.table().items()}


def changed(servers: dict[str, Server], text: str) -> dict[str, int]:
    """Return how many images of each server have a description that begins like this."""
    return {
        name: sum(str(image.get("description")).startswith(text) for image in server.images().values())
        for name, server in servers.items()
    }
