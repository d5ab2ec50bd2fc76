"""This file makes up a fleet of images, the same for the same seed, with names like those people really have."""

import random
from datetime import datetime, timedelta
from typing import Any

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
_TEAMS = ("web", "db", "ci-runner", "vdi", "k8s-node", "bastion", "edge", "gold", "staging")


def uuid(rng: random.Random) -> str:
    """32 hexadecimal digits."""
    return f"{rng.getrandbits(128):032x}"


def java_date(moment: datetime) -> str:
    """`Apr 27, 2026 3:10:09 PM`: how Gson writes a date, in the server's zone and without saying which."""
    return f"{moment:%b} {moment.day}, {moment.year} {moment.hour % 12 or 12}:{moment:%M:%S} {'AM' if moment.hour < 12 else 'PM'}"


def make_images(count: int, seed: int) -> list[dict[str, Any]]:
    """`count` image inventories as the server would show them."""
    rng = random.Random(seed)
    start = datetime(2024, 1, 1, 8, 0, 0)
    images = [_image(rng, number, start + timedelta(hours=7 * number)) for number in range(count)]
    for image in images[4::9]:
        del image["description"]  # null, which the server does not show (PROTOCOL.md §1)
    return images


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
