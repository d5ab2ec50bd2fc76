"""This file is the tag API: user tags and system tags of images (PROTOCOL.md §6, «Tags»). UpdateImage never touches them."""

import uuid
from collections.abc import Callable
from datetime import datetime
from typing import Any

from bulkimg.sandbox import refusals
from bulkimg.sandbox.generate import java_date


class Tags:
    """All tags by their own uuid."""

    def __init__(self, now: Callable[[], datetime]) -> None:
        self.rows: dict[str, dict[str, Any]] = {}
        self._now = now

    def of(self, kind: str) -> list[dict[str, Any]]:
        """The tags of one kind, `User` or `System`."""
        return [tag for tag in self.rows.values() if tag["type"] == kind]

    def create(self, kind: str, resource: str, text: str) -> dict[str, Any] | None:
        """The new tag. A user tag that exists is an error; a system tag that exists is silently not made again."""
        if any(tag["tag"] == text and tag["resourceUuid"] == resource for tag in self.of(kind)):
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
        self.rows[tag["uuid"]] = tag
        return tag

    def change(self, tag_uuid: str, text: str) -> dict[str, Any]:
        """A system tag with another text."""
        if tag_uuid not in self.rows:
            raise refusals.Refusal(
                "SYS.1003", f"invalid field[uuid], resource[uuid:{tag_uuid}, type:SystemTagVO] not found"
            )
        self.rows[tag_uuid] = {**self.rows[tag_uuid], "tag": text, "lastOpDate": java_date(self._now())}
        return self.rows[tag_uuid]

    def delete(self, tag_uuid: str) -> None:
        """A tag that is not there is deleted too."""
        self.rows.pop(tag_uuid, None)

    def replace_boot_mode(self, resource: str, text: str) -> None:
        """What UpdateImage does when `architecture` is sent (ImageBase.java:913-925)."""
        for tag in self.of("System"):
            if tag["resourceUuid"] == resource and tag["tag"].startswith("bootMode::"):
                self.delete(tag["uuid"])
        self.create("System", resource, text)
