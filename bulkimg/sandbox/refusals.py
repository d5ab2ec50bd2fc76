"""The server's error codes, descriptions and literal texts (docs/dev/protocol.md §1–§4)."""

from typing import Any

_DESCRIPTIONS = {
    "SYS.1000": "An internal error happened in system",
    "SYS.1003": "A resource can not be found",
    "SYS.1006": "An operation error happened",
    "SYS.1007": "One or more API argument is invalid",
    "ID.1000": "Unable to authenticate a user",
    "ID.1001": "The session is invalid, either wrong session id or the session has been expired",
    "ID.1006": "Max number of active sessions exceeded",
}
_VALIDATOR = "org.zstack.header.message.ApiMessageParamValidator"  # the class name in the real text is the validator's
RUNTIME = "org.zstack.header.exception.CloudRuntimeException"  # the texts that wrap a query's exceptions


class Refusal(Exception):
    """A business failure: 503 with a JSON error."""

    def __init__(self, code: str, details: str) -> None:
        super().__init__(details)
        self.body: dict[str, Any] = {
            "error": {"code": code, "description": _DESCRIPTIONS[code], "details": details[:4096], "cost": "1ms"}
        }


class PlainRefusal(Exception):
    """A refusal of the REST layer: a status and a plain text."""

    def __init__(self, status: int, text: str) -> None:
        super().__init__(text)
        self.status = status


def internal(text: str) -> Refusal:
    """Return what @MessageSafe makes of an exception in a query: SYS.1000 with the text of its wrapper."""
    return Refusal("SYS.1000", f"{RUNTIME}: {text}")


def no_column(java: str, name: str) -> Refusal:
    return internal(f"inventory class[class {java}] not having field[{name}]")  # ZQLMetadata.java:170-181


def no_step(java: str, rest: str, name: str) -> Refusal:
    where = f"class {java}"
    return internal(
        f"invalid nested query condition[{rest}] on {where},the expanded target[{where}] have no expanded query[{name}]"
    )


def not_converted(name: str) -> Refusal:
    return internal(f"{RUNTIME}: For the field[{name}], fail to convert a vo to a inventory")


def broken_text(value: str) -> Refusal:
    return internal(f"org.antlr.v4.runtime.misc.ParseCancellationException: error token recognition error near {value}")


def mandatory(field: str) -> Refusal:
    return Refusal("SYS.1007", f"field[{field}] of message[{_VALIDATOR}] is mandatory, can not be null")


def not_found(field: str, uuid: str, kind: str) -> Refusal:
    return Refusal("SYS.1003", f"invalid field[{field}], resource[uuid:{uuid}, type:{kind}] not found")


def no_such_image(uuid: str) -> Refusal:
    return not_found("uuid", uuid, "ImageVO")


def not_a_choice(field: str, valid: tuple[str, ...], found: str) -> Refusal:
    return Refusal(
        "SYS.1007",
        f"valid value for field[{field}] of message[{_VALIDATOR}] are [{', '.join(valid)}], but {found} found",
    )


def too_long(field: str, limit: int, actual: int) -> Refusal:
    text = f"field[{field}] of message[{_VALIDATOR}] exceeds max length of string. expected was <= {limit}, actual was {actual}"
    return Refusal("SYS.1007", text)


def session_expired() -> Refusal:
    return Refusal("ID.1001", "Session expired")


def duplicate_tag(tag: str, uuid: str) -> Refusal:
    return Refusal("SYS.1006", f"Duplicated Tag[tag:{tag}, type:User, resourceType:ImageVO, resourceUuid:{uuid}]")


def no_action(path: str) -> PlainRefusal:
    return PlainRefusal(400, f"the body doesn't contain action mapping to the URL[{path}]")


def no_mapping(path: str) -> PlainRefusal:
    return PlainRefusal(404, f"no api mapping to {path}")


def bad_boolean(field: str, value: object) -> PlainRefusal:
    return PlainRefusal(
        400, f"Invalid value for boolean field [{field}], [{value}] is not a valid boolean string[true, false]."
    )


def duplicate_job(uuid: str) -> PlainRefusal:
    return PlainRefusal(400, f"Duplicate job uuid[{uuid}]")


def bad_job() -> PlainRefusal:
    return PlainRefusal(400, "Invalid header[X-Job-UUID], it must be a UUID with '-' stripped")


def job_expired() -> PlainRefusal:
    return PlainRefusal(404, "the job has been expired")
