"""List the columns of each inventory and their types. A query may name no others.

The sources are `ImageInventory.java`, `ImageBackupStorageRefInventory.java`, `BackupStorageInventory.java`,
`VolumeInventory.java`, `UserTagInventory.java` and `SystemTagInventory.java` of zstackio/zstack 5a29293. The id of a
ref is hidden there (`@APINoSee`).
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Literal

Kind = Literal["text", "number", "flag", "date"]


@dataclass(frozen=True, slots=True, eq=False)
class Inventory:
    """A Java class, its columns, and the columns that are enumerations. `joined` are no columns."""

    java: str
    fields: Mapping[str, Kind]
    enumerations: frozenset[str] = frozenset()
    joined: frozenset[str] = frozenset()


def _columns(texts: str, numbers: str = "", flags: str = "") -> dict[str, Kind]:
    """Return the columns with the two dates that each class has."""
    kinds: Iterable[tuple[str, Kind]] = ((texts, "text"), (numbers, "number"), (flags, "flag"))
    return {name: kind for names, kind in kinds for name in names.split()} | {
        "createDate": "date",
        "lastOpDate": "date",
    }


IMAGE = Inventory(
    "org.zstack.header.image.ImageInventory",
    _columns(
        "uuid name description state status md5Sum url mediaType guestOsType type platform architecture format",
        "size actualSize",
        "system virtio",
    ),
    frozenset({"state", "status", "mediaType", "platform"}),
    frozenset({"backupStorageRefs", "systemTags"}),
)
IMAGE_REF = Inventory(
    "org.zstack.header.image.ImageBackupStorageRefInventory",
    _columns("imageUuid backupStorageUuid installPath status exportMd5Sum exportUrl"),
)
STORAGE = Inventory(
    "org.zstack.header.storage.backup.BackupStorageInventory",
    _columns("uuid name url description type state status", "totalCapacity availableCapacity"),
)
VOLUME = Inventory(
    "org.zstack.header.volume.VolumeInventory",
    _columns(
        "uuid name description primaryStorageUuid vmInstanceUuid diskOfferingUuid rootImageUuid installPath type format"
        " state status volumeQos lastDetachDate lastVmInstanceUuid lastAttachDate",
        "size actualSize deviceId",
        "isShareable",
    ),
)
_TAG = "uuid resourceUuid resourceType tag type"
TAGS = {
    "User": Inventory(
        "org.zstack.header.tag.UserTagInventory",
        _columns(f"{_TAG} tagPatternUuid"),
        frozenset({"type"}),
        frozenset({"tagPattern"}),
    ),
    "System": Inventory(
        "org.zstack.header.tag.SystemTagInventory", _columns(_TAG, flags="inherent"), frozenset({"type"})
    ),
}
