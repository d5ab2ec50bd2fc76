"""Make the backup storages of the images: one for each image, and three that images share."""

import random
from collections.abc import Mapping
from typing import Any

_SHARED = 3


def shared_storages(rng: random.Random) -> list[str]:
    """Return the uuids of the storages that images with several copies share."""
    return [f"{rng.getrandbits(128):032x}" for _ in range(_SHARED)]


def storage_of(ref: Mapping[str, Any]) -> dict[str, Any]:
    """Return the storage as BackupStorageInventory.java shows it. It is always the same for the same uuid."""
    uuid = ref["backupStorageUuid"]
    return {
        "uuid": uuid,
        "name": f"ceph-bs-{uuid[:4]}",
        "url": "ceph",
        "type": "Ceph",
        "state": "Enabled",
        "status": "Connected",
        "totalCapacity": 20 << 40,
        "availableCapacity": 11 << 40,
        "createDate": ref["createDate"],
        "lastOpDate": ref["lastOpDate"],
    }
