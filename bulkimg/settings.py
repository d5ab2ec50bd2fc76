"""This file turns flags, environment, job file and profile into one frozen Settings object, in that order of precedence.

Every option has one name: `--max-errors` is `BULKIMG_MAX_ERRORS`, `max_errors` in a job file or a profile, and
`Settings.max_errors`. A wrong value is a UsageError that names the place it came from.
"""

import codecs
import difflib
import math
import re
import tomllib
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from ipaddress import ip_address
from pathlib import Path
from typing import Annotated, Any, Literal
from urllib.parse import urlsplit

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError

from bulkimg.errors import UsageError
from bulkimg.model import CHOICES, FIELDS

# ---------------------------------------------------------------------------------------------------------------------
# Values: text as a user writes it → what the program works with. ValueError carries the rest of the sentence.


MOST_RATE = 1_000_000  # requests a second; above it, people mean unlimited
MOST_SECONDS = 30 * 86400.0


def parse_rate(value: Any) -> float:
    """`20/s`, `300/min`, `7200/h`, a bare number (a second) or `unlimited` → requests a second, `inf` for no limit."""
    text = str(value).strip().lower()
    if text in {"unlimited", "inf"}:
        return math.inf
    found = re.fullmatch(r"(\d{1,12}(?:\.\d+)?(?:e-\d\d)?)(?:/(s|sec|m|min|h))?", text, re.ASCII)
    per_second = float(found[1]) / {None: 1, "s": 1, "sec": 1, "m": 60, "min": 60, "h": 3600}[found[2]] if found else 0
    if not 0 < per_second <= MOST_RATE:
        raise ValueError(f"is not a rate: write 20/s, 300/min (at most {MOST_RATE:,}/s) or unlimited")
    return per_second


def parse_duration(value: Any) -> float:
    """`30`, `30s`, `500ms`, `5m`, `2h` → seconds."""
    found = re.fullmatch(r"(\d{1,12}(?:\.\d+)?)(ms|s|m|h)?", str(value).strip().lower(), re.ASCII)
    seconds = float(found[1]) * {None: 1, "s": 1, "ms": 0.001, "m": 60, "h": 3600}[found[2]] if found else 0
    if not 0 < seconds <= MOST_SECONDS:
        raise ValueError("is not a duration: write 30s, 500ms, 5m or 2h; 30 days at most")
    return seconds


@dataclass(frozen=True, slots=True)
class ErrorLimit:
    """More than `count` errors, or more than `share` of the last 1,000 finished rows once `sample` have finished, stop."""

    count: int | None = None
    share: float | None = None
    sample: int = 100

    def __str__(self) -> str:
        return f"{self.share * 100:.12f}".rstrip("0").rstrip(".") + "%" if self.share is not None else str(self.count)


def parse_error_limit(value: Any) -> ErrorLimit:
    """`10`, `5%` or `none`."""
    if isinstance(value, ErrorLimit):
        return value
    text = str(value).strip().lower()
    if text == "none":
        return ErrorLimit()
    if found := re.fullmatch(r"(\d+(?:\.\d+)?)%", text, re.ASCII):
        if (share := float(found[1]) / 100) <= 1:
            return ErrorLimit(share=share)
    elif re.fullmatch(r"\d+", text, re.ASCII):
        return ErrorLimit(count=int(text))
    raise ValueError("is not a limit: write a number of rows (10), a share (5%) or none")


def parse_endpoint(value: Any) -> str:
    """Scheme, host and port of the server, and nothing else → `scheme://host:port`."""
    text = str(value).strip()
    try:
        url = urlsplit(text)
        host, port = url.hostname, url.port
        (host or "").encode("idna")
    except ValueError:  # its text may repeat a password
        raise ValueError("is not an URL: write the scheme, host and port, such as http://host:8080") from None
    if url.scheme not in {"http", "https"} or not host or re.search(r"[\s\\]", text):
        raise ValueError("is not an URL: write the scheme, host and port, such as http://host:8080")
    if url.username is not None or url.password is not None:
        raise ValueError("carries a user name or password; set BULKIMG_ACCOUNT and BULKIMG_PASSWORD instead")
    if port == 0:
        raise ValueError("has port 0; write the server's port")
    if url.path not in {"", "/"} or url.query or url.fragment:
        raise ValueError("has more than scheme, host and port; the context path is --base-path")
    host = f"[{host}]" if ":" in host else host
    return f"{url.scheme}://{host}:{port or (443 if url.scheme == 'https' else 80)}"


def _base_path(value: Any) -> str:
    text = "/" + str(value).strip("/") if str(value).strip("/") else ""
    if not re.fullmatch(r"(/[A-Za-z0-9._~-]+)*", text) or "/." in text:
        raise ValueError("is not a path such as /zstack")
    return text


def _pairs(value: Any) -> tuple[tuple[str, str], ...]:
    """`["a=b", …]`, lines of `a=b`, pairs, or a table of texts, numbers and booleans → pairs."""
    if isinstance(value, Mapping):
        value = list(value.items())
    pairs = []
    for item in value.splitlines() if isinstance(value, str) else _list(value):
        if isinstance(item, str):
            left, equals, right = item.partition("=")
            if not equals or not left.strip():
                raise ValueError(f"has {item!r}, which is not NAME=VALUE")
        else:
            left, right = _pair(item)
        pairs.append((left.strip(), right))
    return tuple(pairs)


def _pair(item: Any) -> tuple[str, str]:
    if not isinstance(item, list | tuple) or len(item) != 2 or not isinstance(item[1], str | int | float):
        raise ValueError(f"has {item!r}, which is not a text, a number or a boolean")
    return str(item[0]), str(item[1]).lower() if isinstance(item[1], bool) else str(item[1])


def _list(value: Any) -> Iterable[Any]:
    if not isinstance(value, list | tuple):
        raise ValueError("is not a list of texts")
    return value


def _texts(value: Any) -> tuple[str, ...]:
    texts = tuple(value.splitlines() if isinstance(value, str) else _list(value))
    if not all(isinstance(text, str) for text in texts):
        raise ValueError("is not a list of texts")
    return texts


def _targets(value: Any) -> tuple[tuple[str, str], ...]:
    """Pairs whose left side is a field of the API."""
    pairs = _pairs(value)
    for name, _ in pairs:
        known_field(name)
    return pairs


def _maps(value: Any) -> tuple[tuple[str, str], ...]:
    pairs = tuple((column, name.strip()) for column, name in _pairs(value))
    for _, name in pairs:
        if name != "uuid" and not name.startswith("_"):
            known_field(name.removeprefix("if_"))
    return pairs


def _admitted(value: Any) -> tuple[tuple[str, str], ...]:
    pairs = _pairs(value)
    for name, _ in pairs:
        if name not in CHOICES:
            raise ValueError(f"names {name!r}, which takes no fixed values; those that do are {', '.join(CHOICES)}")
    return pairs


CONDITION = re.compile(r"([^=!~]+)(!=|~=|=)(.*)", re.DOTALL)


def _conditions(value: Any) -> tuple[str, ...]:
    texts = _texts(value)
    for text in texts:
        if not CONDITION.fullmatch(text):
            raise ValueError(
                f"has {text!r}, which is not COLUMN=VALUE, COLUMN!=VALUE or COLUMN~=PATTERN (% is a wildcard)"
            )
    return texts


def known_field(name: str) -> str:
    """The name, if it is a field of the API; ValueError with the nearest one otherwise."""
    if name in FIELDS:
        return name
    raise ValueError(f"names {name!r}, which is not a field{nearest(name, FIELDS)}")


def nearest(word: str, known: Iterable[str]) -> str:
    """`; did you mean 'x'?` when one of the known words is near, else the whole list."""
    known = list(known)
    by_fold = {item.casefold(): item for item in known}
    found = difflib.get_close_matches(word.casefold(), by_fold, 1, 0.6)
    return f"; did you mean {by_fold[found[0]]!r}?" if found else f"; known are {', '.join(known)}" if known else ""


def _encoding(value: Any) -> str:
    try:
        codec = codecs.lookup(str(value))
        if not getattr(codec, "_is_text_encoding", True):
            raise LookupError
        return codec.name
    except (LookupError, ValueError):
        raise ValueError("is not an encoding that Python knows; try utf-8, utf-16, gb18030 or latin-1") from None


def _path(value: Any) -> Path:
    if not isinstance(value, str | Path) or "\0" in str(value):
        raise ValueError("is not a path")
    return Path(value).expanduser()


Pairs = tuple[tuple[str, str], ...]


class Settings(BaseModel):
    """Every option of a run. Times are seconds, the rate is requests a second (`inf` for unlimited)."""

    model_config = ConfigDict(frozen=True, extra="forbid", ser_json_inf_nan="constants")

    # where to
    endpoint: Annotated[str, BeforeValidator(parse_endpoint)] | None = None
    base_path: Annotated[str, BeforeValidator(_base_path)] = "/zstack"
    ca_file: Annotated[Path, BeforeValidator(_path)] | None = None
    require_tls: bool = False
    action_key: Literal["auto", "updateimage", "updateImage"] = "auto"
    # how fast, how long
    rate: Annotated[float, BeforeValidator(parse_rate)] = 50.0
    concurrency: Annotated[int, Field(ge=1, le=1000)] = 16
    timeout: Annotated[float, BeforeValidator(parse_duration)] = 30.0
    job_timeout: Annotated[float, BeforeValidator(parse_duration)] = 1800.0
    max_outage: Annotated[float, BeforeValidator(parse_duration)] = 3600.0
    retries: Annotated[int, Field(ge=0, le=100)] = 5
    max_errors: Annotated[ErrorLimit, BeforeValidator(parse_error_limit)] = ErrorLimit(share=0.5, sample=1000)
    # the manifest
    format: Literal["csv", "tsv", "jsonl", "ndjson"] | None = None
    encoding: Annotated[str, BeforeValidator(_encoding)] = "utf-8"
    map: Annotated[Pairs, BeforeValidator(_maps)] = ()
    set: Annotated[Pairs, BeforeValidator(_targets)] = ()
    empty_token: Annotated[str, Field(min_length=1)] = "<empty>"  # noqa: S105 - not a password
    allow_value: Annotated[Pairs, BeforeValidator(_admitted)] = ()
    skip_invalid: bool = False
    skip_rows: Annotated[int, Field(ge=0)] = 0
    max_rows: Annotated[int, Field(ge=1)] | None = None
    where: Annotated[tuple[str, ...], BeforeValidator(_conditions)] = ()
    # what we leave and show
    results: Annotated[Path, BeforeValidator(_path)] | None = None
    runs_dir: Annotated[Path, BeforeValidator(_path)] = Path("runs")
    progress: Literal["auto", "bar", "plain", "json", "none"] = "auto"
    json_summary: Annotated[bool, Field(alias="json")] = False
    log_format: Literal["text", "json"] = "text"
    verbose: bool = False
    yes: bool = False
    dry_run: bool = False
    profile: str | None = None
    # set by a job file
    manifest: Annotated[Path, BeforeValidator(_path)] | None = None
    job_name: str = ""

    @property
    def is_readable_on_the_way(self) -> bool:
        """Whether what is sent crosses a network without TLS, where others may read it."""
        return self.endpoint is not None and self.endpoint.startswith("http:") and not _is_loopback(self.endpoint)

    @property
    def target(self) -> str:
        """The server and context path, without anything secret."""
        return f"{self.endpoint}{self.base_path}"


def _is_loopback(endpoint: str) -> bool:
    host = urlsplit(endpoint).hostname or ""
    try:
        return host == "localhost" or ip_address(host).is_loopback
    except ValueError:
        return False


# ---------------------------------------------------------------------------------------------------------------------
# Layers.

_OPTIONS = {field.alias or name: name for name, field in Settings.model_fields.items()}
_FROM_JOB_ONLY = frozenset({"manifest", "job_name"})
_ENVIRONMENT = {f"BULKIMG_{option.upper()}": option for option in _OPTIONS if option not in _FROM_JOB_ONLY}

# A job file's tables, and the option each key sets (PRODUCT.md §7).
_JOB_KEYS: Mapping[str, Mapping[str, str]] = {
    "job": {"name": "job_name"}
    | {
        key: key
        for key in ("manifest", "format", "encoding", "empty_token", "skip_invalid", "skip_rows", "max_rows", "where")
    },
    "target": {key: key for key in ("profile", "endpoint", "base_path", "ca_file", "require_tls", "action_key")},
    "pace": {key: key for key in ("rate", "concurrency", "timeout", "job_timeout", "max_outage", "retries")},
    "guard": {"max_errors": "max_errors"},
    "results": {"path": "results"},
}
_JOB_PATHS = frozenset({"manifest", "results", "ca_file"})


@dataclass(frozen=True, slots=True)
class Layer:
    """Options from one place; `label(option)` says where an option was set, for messages."""

    options: Mapping[str, Any]
    label: Callable[[str], str]


def flag(option: str) -> str:
    """The option as a command line shows it."""
    return f"--{option.replace('_', '-')}"


def flags_layer(flags: Mapping[str, Any]) -> Layer:
    """What was given on the command line; None means not given."""
    return Layer({key: value for key, value in flags.items() if value is not None}, flag)


def environment_layer(environ: Mapping[str, str]) -> Layer:
    """`BULKIMG_<OPTION>`; an empty variable counts as not set."""
    options = {option: environ[name] for name, option in _ENVIRONMENT.items() if environ.get(name)}
    return Layer(options, lambda option: f"BULKIMG_{option.upper()}")


def read_toml(path: Path) -> dict[str, Any]:
    """The file's tables; UsageError with line and column where it is not TOML."""
    try:
        return tomllib.loads(path.read_text("utf-8"))
    except OSError as error:
        raise UsageError(f"{path}: cannot be read: {error.strerror}") from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise UsageError(f"{path}: is not TOML: {error}") from None


def job_layer(path: Path) -> tuple[Layer, str | None]:
    """A job file's options, and the profile it names. Paths in it are relative to the file."""
    options: dict[str, Any] = {}
    for table, content in read_toml(path).items():
        if table in {"map", "set"}:
            options[table] = content
            continue
        if table not in _JOB_KEYS or not isinstance(content, dict):
            raise UsageError(
                f"{_place(path, table)}: unknown table [{table}]{nearest(table, [*_JOB_KEYS, 'map', 'set'])}"
            )
        for key, value in content.items():
            if key not in _JOB_KEYS[table]:
                raise UsageError(
                    f"{_place(path, key)}: unknown option {key!r} in [{table}]{nearest(key, _JOB_KEYS[table])}"
                )
            option = _JOB_KEYS[table][key]
            options[option] = (
                path.parent / value if option in _JOB_PATHS and isinstance(value, str) and value != "-" else value
            )
    if "manifest" not in options:
        raise UsageError(f'{path}: [job] names no manifest; add manifest = "FILE"')
    profile = options.pop("profile", None)
    if not isinstance(profile, str | None):
        raise UsageError(f"{_place(path, 'profile')}: profile {profile!r} is not a name")
    return Layer(options, lambda option: f"{path}: {option}"), profile


def _place(path: Path, key: str) -> str:
    """`file:line` of a key; tomllib does not tell positions, so the first line that begins with the key is named."""
    for number, text in enumerate(path.read_text("utf-8").splitlines(), 1):
        if re.match(rf"\s*\[?\s*[\"']?{re.escape(key)}\b", text):
            return f"{path}:{number}"
    return str(path)


def config_file(environ: Mapping[str, str]) -> Path:
    """`$XDG_CONFIG_HOME/bulkimg/config.toml`, by default under ~/.config."""
    home = environ.get("XDG_CONFIG_HOME") or Path(environ.get("HOME") or "~").expanduser() / ".config"
    return Path(home) / "bulkimg" / "config.toml"


def read_profile(name: str | None, environ: Mapping[str, str]) -> dict[str, Any]:
    """The table `[profile.NAME]` of the configuration file, credentials included; {} when no profile is asked for."""
    if not name:
        return {}
    path = config_file(environ)
    if not path.exists():
        raise UsageError(f"--profile {name}: there is no {path}; create it with a table [profile.{name}]")
    profiles = read_toml(path).get("profile", {})
    if not isinstance(profiles, dict) or not isinstance(profiles.get(name), dict):
        known = profiles if isinstance(profiles, dict) else ()
        raise UsageError(f"{path}: has no table [profile.{name}]{nearest(name, known)}")
    return dict(profiles[name])


def profile_layer(name: str | None, table: Mapping[str, Any], path: Path) -> Layer:
    """A profile's options, with an unknown key refused."""
    for key in table:
        if key not in _OPTIONS or key in _FROM_JOB_ONLY:
            raise UsageError(f"{_place(path, key)}: unknown option {key!r} in [profile.{name}]{nearest(key, _OPTIONS)}")
    return Layer(table, lambda option: f"{path}: [profile.{name}] {option}")


def merge(*layers: Layer) -> Settings:
    """The first layer that sets an option wins; UsageError names the option's place when its value is wrong."""
    options: dict[str, Any] = {}
    labels: dict[str, str] = {}
    for layer in layers:
        for option, value in layer.options.items():
            if option not in options:
                options[option], labels[option] = value, layer.label(option)
    try:
        settings = Settings.model_validate(options)
    except ValidationError as error:
        raise UsageError("\n".join(_sentence(item, labels) for item in error.errors())) from None
    if settings.require_tls and settings.is_readable_on_the_way:
        raise UsageError(
            f"{labels['endpoint']} {settings.endpoint!r} is plain http to another machine, and {labels['require_tls']} "
            "forbids that; write https://"
        )
    return settings


def _sentence(item: Any, labels: Mapping[str, str]) -> str:
    option = str(item["loc"][0])
    message = item["msg"].removeprefix("Value error, ")
    if item["type"] == "literal_error":
        message = f"is not one of {item['ctx']['expected']}"
    elif item["type"] != "value_error":
        message = f"is not valid: {message[0].lower()}{message[1:]}"
    shown = (
        re.sub(r"//.*@", "//…@", repr(item["input"]), flags=re.DOTALL) if option == "endpoint" else repr(item["input"])
    )
    return f"{labels.get(option, flag(option))} {shown[:200]} {message}"
