"""Check system tags: the server accepts only known patterns for an image (TagManagerImpl.java:752-757)."""

from bulkimg.sandbox import refusals

# image/src/main/java/org/zstack/image/ImageSystemTags.java of zstackio/zstack 5a29293: every tag of ImageVO in the open
# source. A part in braces stands for any text. The commercial edition may have more.
_PATTERNS = (
    "qemuga",
    "imageName::{imageName}::primaryStorageUuid::{primaryStorageUuid}",
    "remote",
    "image::cert::{imageCert}",
    "sourceType::{sourceType}",
    "bootMode::{bootMode}",
    "CreatedBySystem",
    "temporary",
    "GuestTools::{guestToolsVersion}",
    "buildapp::{buildapp}",
    "packer",
    "applianceType::{applianceType}",
    "marketplace::true",
)
_BOOT_MODES = ("legacy", "uefi", "uefi_with_csm")


def check_system_tag(text: str) -> None:
    """Raise SYS.1007 for a text that matches no pattern, or an unknown boot mode (ImageManagerImpl.java:872-886)."""
    if not any(_matches(pattern, text) for pattern in _PATTERNS):
        raise refusals.Refusal("SYS.1007", f"no system tag matches[{text}] for resourceType[ImageVO]")
    name, _, mode = text.partition("::")
    if name == "bootMode" and mode.lower() not in _BOOT_MODES:
        raise refusals.Refusal("SYS.1007", f"[{mode}] specified in system tag [{text}] is not a valid boot mode")


def _matches(pattern: str, text: str) -> bool:
    """Match like TagUtils.isMatch: part by part, with case. Java's split drops empty parts at the end."""
    wanted, given = pattern.split("::"), text.split("::")
    while given and not given[-1]:
        given.pop()
    return len(wanted) == len(given) and all(
        part.startswith("{") or part == found for part, found in zip(wanted, given, strict=True)
    )
