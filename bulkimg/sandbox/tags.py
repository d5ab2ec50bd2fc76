"""The tag API: user tags and system tags of images (docs/dev/protocol.md §6, "Tags"). UpdateImage never touches them."""

import uuid
from collections.abc import Callable, Iterable
from datetime import datetime
from typing import Any

from bulkimg.sandbox import refusals
from bulkimg.sandbox.dates import java_date
from bulkimg.sandbox.inventory import TAGS
from bulkimg.sandbox.systemtags import check_system_tag


class OneKind:
    """The tags of one kind, by the resource that has them."""

    indexed = "resourceUuid"

    def __init__(self, kind: str) -> None:
        self.kind = kind
        self.inventory = TAGS[kind]
        self.by_resource: dict[str, dict[str, dict[str, Any]]] = {}

    def all(self, beyond: str = "") -> Iterable[dict[str, Any]]:
        """Return every tag, or those of resources with greater uuids."""
        resources = sorted(resource for resource in self.by_resource if resource > beyond)
        return [tag for resource in resources for tag in self.by_resource[resource].values()]

    def having(self, values: Iterable[str]) -> Iterable[dict[str, Any]]:
        """Return the tags of these resources."""
        return [tag for resource in dict.fromkeys(values) for tag in self.by_resource.get(resource, {}).values()]

    def tags_of(self, kind: str, uuid: str) -> Iterable[str]:
        """Return nothing: a tag has no tags."""
        return ()


class Tags:
    """All tags by their own uuid."""

    def __init__(self, now: Callable[[], datetime]) -> None:
        self.rows: dict[str, dict[str, Any]] = {}
        self.kinds = {kind: OneKind(kind) for kind in ("User", "System")}
        self._now = now

    def create(self, kind: str, resource: str, text: str) -> dict[str, Any] | None:
        """Create a tag. A user tag that exists is an error; a system tag that exists is silently kept.

        `check_system_tag` checks before whether the text is allowed in a system tag.
        """
        if any(tag["tag"] == text for tag in self.kinds[kind].having([resource])):
            if kind == "System":
                return None
            raise refusals.duplicate_tag(text, resource)
        date = java_date(self._now())
        tag: dict[str, Any] = {
            "uuid": uuid.uuid4().hex,
            "resourceUuid": resource,
            "resourceType": "ImageVO",
            "tag": text,
            "type": kind,
            "createDate": date,
            "lastOpDate": date,
        }
        if kind == "System":
            tag["inherent"] = False
        self._keep(tag)
        return tag

    def texts(self, kind: str, resource: str) -> Iterable[str]:
        """Return the texts of a resource's tags of one kind."""
        return (tag["tag"] for tag in self.kinds[kind].having([resource]))

    def _keep(self, tag: dict[str, Any]) -> None:
        self.rows[tag["uuid"]] = tag
        self.kinds[tag["type"]].by_resource.setdefault(tag["resourceUuid"], {})[tag["uuid"]] = tag

    def change(self, tag_uuid: str, text: str) -> dict[str, Any]:
        """Change a system tag's text. It must match a pattern too (TagApiInterceptor.java:67-74)."""
        if self.rows.get(tag_uuid, {}).get("type") != "System":
            raise refusals.not_found("uuid", tag_uuid, "SystemTagVO")
        check_system_tag(text)
        self._keep({**self.rows[tag_uuid], "tag": text, "lastOpDate": java_date(self._now())})
        return self.rows[tag_uuid]

    def delete(self, tag_uuid: str) -> None:
        """Delete a tag. It also succeeds for a tag that does not exist."""
        if tag := self.rows.pop(tag_uuid, None):
            del self.kinds[tag["type"]].by_resource[tag["resourceUuid"]][tag_uuid]

    def replace_boot_mode(self, resource: str, text: str) -> None:
        """Do what UpdateImage does when `architecture` is sent (ImageBase.java:913-925)."""
        for tag in self.kinds["System"].having([resource]):
            if tag["tag"].startswith("bootMode::"):
                self.delete(tag["uuid"])
        self.create("System", resource, text)
