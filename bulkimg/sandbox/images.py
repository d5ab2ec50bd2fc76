"""Keep the images: updates with trims, limits and side effects (docs/dev/protocol.md §5), and queries (§6)."""

from bisect import bisect_right
from collections.abc import Callable, Iterable, Mapping
from datetime import datetime
from typing import Any

from bulkimg.sandbox import refusals
from bulkimg.sandbox.compare import canonical
from bulkimg.sandbox.dates import java_date
from bulkimg.sandbox.inventory import IMAGE
from bulkimg.sandbox.tags import Tags

_LENGTHS = {"name": 255, "description": 2048, "guestOsType": 255, "mediaType": 255, "format": 255, "architecture": 32}
_VALID = {
    "mediaType": ("RootVolumeTemplate", "DataVolumeTemplate", "ISO"),
    "format": ("raw", "qcow2", "iso"),
    "platform": ("Linux", "Windows", "Other", "Paravirtualization", "WindowsVirtio"),
    "architecture": ("x86_64", "aarch64", "mips64el", "loongarch64"),
}
_STRINGS = ("name", "description", "guestOsType", "mediaType", "format", "platform", "architecture")
_BOOLEANS = ("system", "virtio")
_JAVA_TRIM = "".join(chr(code) for code in range(0x21))
# The page's example has these and no others ([D] in docs/dev/protocol.md §0).
_DOCUMENTED = ("uuid", "name", "url", "mediaType", "platform", "architecture", "format", "backupStorageRefs")
_DOCUMENTED_REF = ("id", "imageUuid", "backupStorageUuid", "installPath", "status")


def read_message(inner: Mapping[str, Any]) -> dict[str, Any]:
    """Return the server's view of the action's object: known fields, no nulls, strings trimmed, booleans checked.

    Unknown fields are ignored, as in Gson. Numbers become strings. An object or a list instead of a string is a 500.
    """
    message: dict[str, Any] = {}
    for name in _BOOLEANS:
        if (value := inner.get(name)) is not None:
            if str(value).lower() not in ("true", "false") or not isinstance(value, bool | str):
                raise refusals.bad_boolean(name, value)
            message[name] = str(value).lower() == "true"
    for name in _STRINGS:
        if (value := inner.get(name)) is not None:
            if isinstance(value, dict | list):
                raise refusals.PlainRefusal(
                    500, f"com.google.gson.JsonSyntaxException: Expected a string but was {type(value).__name__}"
                )
            text = value if isinstance(value, str) else str(value).lower() if isinstance(value, bool) else str(value)
            message[name] = text.strip(_JAVA_TRIM)
    return message


def validate(message: Mapping[str, Any]) -> None:
    """Check lengths in UTF-16 units, then enumerations, as ApiMessageParamValidator does."""
    for name, limit in _LENGTHS.items():
        if name in message and (actual := len(message[name].encode("utf-16-le", "surrogatepass")) // 2) > limit:
            raise refusals.too_long(name, limit, actual)
    for name, valid in _VALID.items():
        if name in message and message[name] not in valid:
            raise refusals.not_a_choice(name, valid, message[name])


class ImageTable:
    """All images, and their tags."""

    indexed = "uuid"
    inventory = IMAGE

    def __init__(self, images: Iterable[dict[str, Any]], now: Callable[[], datetime]) -> None:
        self.rows: dict[str, dict[str, Any]] = {image["uuid"]: image for image in images}
        self._in_order = sorted(self.rows)  # images are neither created nor deleted here
        self.tags = Tags(now)
        self._now = now

    def all(self, beyond: str = "") -> Iterable[dict[str, Any]]:
        """Return every image, or those with greater uuids."""
        return (self.rows[uuid] for uuid in self._in_order[bisect_right(self._in_order, beyond) :])

    def having(self, values: Iterable[str]) -> Iterable[dict[str, Any]]:
        """Return the images with these uuids."""
        return [self.rows[uuid] for uuid in dict.fromkeys(values) if uuid in self.rows]

    def tags_of(self, kind: str, uuid: str) -> Iterable[str]:
        """Return the texts of an image's tags."""
        return self.tags.texts(kind, uuid)

    def find(self, uuid: str) -> dict[str, Any] | None:
        """Return the image, also for an upper-case uuid.

        This is inferred from the collation (DatabaseFacadeImpl.java:431-438).
        """
        return self.rows.get(canonical(uuid))

    def load(self, uuid: str) -> dict[str, Any]:
        """Return the image's columns for one request. It writes unchanged columns back as they were here."""
        if (image := self.find(uuid)) is None:
            raise refusals.no_such_image(uuid)
        return dict(image)

    def store(self, loaded: dict[str, Any], message: Mapping[str, Any]) -> dict[str, Any]:
        """Write the whole entity back. A change between load and store is lost, as on the real server."""
        changed = {**loaded, **message}
        if changed != loaded:
            changed["lastOpDate"] = java_date(self._now())
        self.rows[changed["uuid"]] = changed
        self._boot_mode(changed, message)
        return changed

    def _boot_mode(self, image: Mapping[str, Any], message: Mapping[str, Any]) -> None:
        architecture = message.get("architecture")
        if architecture == "aarch64":
            self.tags.replace_boot_mode(image["uuid"], "bootMode::UEFI")
        elif architecture == "x86_64" and image["system"]:
            self.tags.replace_boot_mode(image["uuid"], "bootMode::Legacy")

    def documented(self, image: Mapping[str, Any]) -> dict[str, Any]:
        """Return the image as the page's example shows one."""
        shown = {name: image[name] for name in _DOCUMENTED if name in image}
        shown["backupStorageRefs"] = [
            {name: float(ref[name]) if name == "id" else ref[name] for name in _DOCUMENTED_REF}
            for ref in image["backupStorageRefs"]
        ]
        return shown
