"""Generate images, the same for the same seed, with realistic names."""

import random
from collections.abc import Iterator
from datetime import datetime, timedelta
from typing import Any

from bulkimg.sandbox.dates import java_date
from bulkimg.sandbox.storages import shared_storages

_SYSTEMS = (
    ("ubuntu-22.04-server", "Ubuntu 22.04", "Linux"),
    ("ubuntu-24.04-minimal", "Ubuntu 24.04", "Linux"),
    ("debian-12-generic", "Debian 12", "Linux"),
    ("rocky-9.4-base", "Rocky Linux 9", "Linux"),
    ("centos-7.9-legacy", "CentOS 7", "Linux"),
    ("openEuler-22.03-LTS", "openEuler", "Linux"),
    ("kylin-v10-sp3", "Kylin V10", "Linux"),
    ("windows-server-2019-std", "Windows Server 2019", "Windows"),
    ("windows-server-2022-dc", "Windows Server 2022", "Windows"),
    ("win10-ltsc-vdi", "Windows 10", "Windows"),
    ("pfsense-2.7", "FreeBSD", "Other"),
    ("应用基础镜像", "CentOS 7", "Linux"),
)
_ORDINARY = 4  # the first images have nothing special
_TEAMS = ("web", "db", "ci-runner", "vdi", "k8s-node", "bastion", "edge", "gold", "staging")


def uuid(rng: random.Random) -> str:
    """Return 32 hexadecimal digits."""
    return f"{rng.getrandbits(128):032x}"


def make_images(count: int, seed: int) -> list[dict[str, Any]]:
    """Return `count` image inventories as the server would show them."""
    rng = random.Random(seed)
    start = datetime(2024, 1, 1, 8, 0, 0)
    images = [_image(rng, number, start + timedelta(hours=7 * number)) for number in range(count)]
    for image in images[4::9]:
        del image["description"]  # null, which the server does not show (docs/dev/protocol.md §1)
    _make_some_special(images, seed)
    return images


def _make_some_special(images: list[dict[str, Any]], seed: int) -> None:
    """Turn some into data volumes, system images and images on several storages. All other images stay the same."""
    storages = shared_storages(random.Random(f"storages {seed}"))
    volumes = set(_one_in(14, 10, len(images), f"volumes {seed}"))  # one is also among ten images
    for number, image in enumerate(images):
        if number in volumes:
            _make_data_volume(image, random.Random(f"volume {number} {seed}"))
    for number in _one_in(25, 25, len(images), f"system {seed}"):
        images[number]["system"] = number not in volumes
    for number in _one_in(10, 10, len(images), f"copies {seed}"):
        rng = random.Random(f"copies {number} {seed}")
        _copy_to(images[number], rng.sample(storages, rng.randint(1, 2)), rng)


def _one_in(share: int, end: int, count: int, seed: str) -> Iterator[int]:
    """Return one number of every `share`: the fifth of them at the earliest, and before `end`."""
    rng = random.Random(seed)
    for block in range(0, count, share):
        if (number := block + rng.randrange(_ORDINARY, end)) < count:
            yield number


def _make_data_volume(image: dict[str, Any], rng: random.Random) -> None:
    """Clear platform, architecture, guestOsType and the driver (CreateDataVolumeTemplateMessage.java:7-43)."""
    for name in ("platform", "architecture", "guestOsType"):
        del image[name]
    image |= {"mediaType": "DataVolumeTemplate", "url": f"volume://{uuid(rng)}", "system": False, "virtio": False}
    if image["format"] == "iso":
        image["format"] = "qcow2"


def _copy_to(image: dict[str, Any], storages: list[str], rng: random.Random) -> None:
    """Add refs like the first, with ids of their own."""
    refs = image["backupStorageRefs"]
    for storage in storages:
        refs.append(
            refs[0]
            | {
                "id": 1_000_000 * len(refs) + refs[0]["id"],
                "backupStorageUuid": storage,
                "installPath": f"ceph://zs-images/{uuid(rng)}",
            }
        )


def _image(rng: random.Random, number: int, created: datetime) -> dict[str, Any]:
    system, guest, platform = _SYSTEMS[rng.randrange(len(_SYSTEMS))]
    image, storage = uuid(rng), uuid(rng)
    iso = rng.random() < 0.1
    size = rng.randrange(1, 60) * (1 << 30)
    date = java_date(created)
    return {
        "uuid": image,
        "name": f"{system}-{rng.choice(_TEAMS)}-{number:04d}",
        "description": rng.choice(["", "imported 2024", "golden image, ask the platform team", "临时镜像"]),
        "state": "Enabled",
        "status": "Ready",
        "size": size,
        "actualSize": size // 3,
        "md5Sum": uuid(rng),
        "url": f"http://192.168.1.20/share/images/{system}.{'iso' if iso else 'qcow2'}",
        "mediaType": "ISO" if iso else "RootVolumeTemplate",
        "guestOsType": guest,
        "type": "zstack",
        "platform": platform if rng.random() < 0.7 else "Other",
        "architecture": "aarch64" if rng.random() < 0.15 else "x86_64",
        "format": "iso" if iso else rng.choice(["qcow2", "raw"]),
        "system": False,
        "virtio": rng.random() < 0.6,
        "createDate": date,
        "lastOpDate": date,
        "backupStorageRefs": [
            {
                "id": number + 1,
                "imageUuid": image,
                "backupStorageUuid": storage,
                "installPath": f"ceph://zs-images/{uuid(rng)}",
                "status": "Ready",
                "createDate": date,
                "lastOpDate": date,
            }
        ],
    }
