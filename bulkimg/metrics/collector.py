"""Know where spans go, and send them there. Texts name the collector without its credentials, path and query."""

import os
import re
from collections.abc import Mapping
from importlib import import_module
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from bulkimg.errors import UsageError
from bulkimg.metrics.overheard import overheard

EXPORTER = "opentelemetry.exporter.otlp.proto.http.trace_exporter"
_PREFIX = "OTEL_EXPORTER_OTLP_"
_DEFAULT = "http://localhost:4318"
_COMPRESSIONS = ("none", "gzip", "deflate")
_FILES = ("certificate", "client_key", "client_certificate")
_PROVIDERS = tuple(f"OTEL_PYTHON_EXPORTER_OTLP_HTTP_{part}credential_provider".upper() for part in ("", "traces_"))


def check_variables(environ: Mapping[str, str]) -> None:
    """Raise UsageError if the variables of the exporter cannot be used. It names a variable and never its value."""
    name, endpoint = _given("endpoint", environ)
    if not _is_url(endpoint or _DEFAULT):
        raise UsageError(f"--otel: {name} is not the URL of a collector; write one such as http://collector:4318")
    name, headers = _given("headers", environ)
    for number, header in enumerate((part for part in headers.split(",") if part.strip()), 1):
        if not _is_header(header):
            raise UsageError(
                f"--otel: entry {number} of {name} is not a header; write name=value, several with commas, "
                "and other characters percent-encoded"
            )
    name, compression = _given("compression", environ)
    if compression.strip().lower() not in ("", *_COMPRESSIONS):
        raise UsageError(f"--otel: {name} is none of {', '.join(_COMPRESSIONS)}; correct or unset it")
    for kind in _FILES:
        name, path = _given(kind, environ)
        if endpoint.startswith("https:") and path and not os.access(path, os.R_OK):
            raise UsageError(f"--otel: {name}: {Path(path)} cannot be read; correct or unset it")


def _given(what: str, environ: Mapping[str, str]) -> tuple[str, str]:
    """Return the variable that counts, and its value or "". That of traces comes before that of everything."""
    names = (f"{_PREFIX}TRACES_{what.upper()}", f"{_PREFIX}{what.upper()}")
    return next(((name, value) for name in names if (value := environ.get(name))), (names[1], ""))


def _is_url(text: str) -> bool:
    try:
        parts = urlsplit(text)
        return parts.scheme in ("http", "https") and bool(parts.hostname) and parts.port != 0 and text.isprintable() and " " not in text  # fmt: skip
    except ValueError:
        return False


def _is_header(text: str) -> bool:
    """Return whether the exporter takes this as a header, and HTTP too."""
    from opentelemetry.util.re import parse_env_headers

    with overheard():
        found = parse_env_headers(text, liberal=True)
    if not found:
        return False
    return all(value.isprintable() and re.fullmatch(r"[\x20-\x7e\xa0-\xff]*", value) for value in found.values())


def shown(environ: Mapping[str, str]) -> str:
    """Return scheme, host and port of the collector."""
    parts = urlsplit(_given("endpoint", environ)[1] or _DEFAULT)
    host = f"[{parts.hostname}]" if parts.hostname and ":" in parts.hostname else parts.hostname
    return f"{parts.scheme}://{host}{f':{parts.port}' if parts.port else ''}"


def make_exporter(seconds: float, session: Any = None) -> Any:
    """Return an exporter of OpenTelemetry. It opens no connection."""
    return import_module(EXPORTER).OTLPSpanExporter(timeout=seconds, session=session)


def deliver(spans: Any, seconds: float) -> str:
    """Send spans. Returns "" or why the collector does not have them."""
    from opentelemetry.sdk.trace.export import SpanExportResult

    has_provider = any(os.environ.get(name) for name in _PROVIDERS)  # it makes the session
    session = None if has_provider else _session()
    try:
        with overheard():
            exporter = make_exporter(seconds, session)
            is_taken = exporter.export(spans) is SpanExportResult.SUCCESS
            exporter.shutdown()
    except Exception as error:  # whatever fails here must not end the run in another way
        return _reason(error)
    why = getattr(session, "why", "")
    return why or ("" if is_taken else "it did not take them")


def _session() -> Any:
    """Return a session that keeps why its last request failed in `why`."""
    import requests

    class Session(requests.Session):
        why = ""

        def request(self, *words: Any, **named: Any) -> requests.Response:
            try:
                answer = super().request(*words, **named)
            except Exception as error:
                self.why = _reason(error)
                raise
            self.why = "" if 200 <= answer.status_code < 300 else f"it answered {answer.status_code}"
            if 300 <= answer.status_code < 400:
                self.why += ", a redirect, which is not followed"
            return answer

    return Session()


def _reason(error: BaseException) -> str:
    """Return why a request failed. The error's own text is left out: it may hold a header or the whole address."""
    import requests

    exceptions = requests.exceptions
    if isinstance(error, exceptions.Timeout):
        return "it did not answer in time"
    if isinstance(error, exceptions.ProxyError):
        return "the proxy of the environment does not lead there"
    if isinstance(error, exceptions.SSLError):
        return "no TLS connection could be made; its certificate may not be trusted"
    if isinstance(error, exceptions.ConnectionError):
        inner = getattr(error.args[0] if error.args else None, "reason", None)
        return {
            "NameResolutionError": "its host name is not known",
            "NewConnectionError": "no connection could be made",
        }.get(type(inner).__name__, "the connection broke before an answer came")
    return f"the exporter of OpenTelemetry failed ({type(error).__name__})"
