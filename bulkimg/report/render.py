"""Render the pages from their templates. Texts are escaped, and characters that a page would obey are written out."""

from base64 import b64encode
from collections.abc import Iterator, Sequence
from functools import cache
from hashlib import sha256
from importlib import resources
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from bulkimg.model import iso_utc
from bulkimg.report.difference import shown
from bulkimg.report.escaping import harmless


def page(name: str, *, styles: Sequence[str], script: str = "", connects: bool = False, **values: Any) -> Iterator[str]:
    """Yield a whole page in pieces. `styles` and `script` are files of the templates; the policy allows only them.

    An injected script never runs, and nothing is loaded. `connects`: the script may ask the page's own server.
    """
    given = {
        "policy": Markup(policy(styles, script, connects=connects)),  # noqa: S704 - our own files
        "style": Markup(_joined(styles)),  # noqa: S704 - our own files
        "script": Markup(text(script) if script else ""),  # noqa: S704 - our own files
    }
    yield from _environment().get_template(name).generate(**given, **values)


def policy(styles: Sequence[str], script: str = "", *, connects: bool = False) -> str:
    """Return the content policy of a page: its own style and script by their hashes, and nothing else."""
    allowed = f"script-src '{_digest(text(script))}'; " if script else ""
    asks = "connect-src 'self'; " if connects else ""
    style = f"style-src '{_digest(_joined(styles))}'; "
    return f"default-src 'none'; {style}{allowed}{asks}base-uri 'none'; form-action 'none'"


def _joined(styles: Sequence[str]) -> str:
    return "".join(text(style) for style in styles)


def fragment(name: str, **values: Any) -> Markup:
    """Return a part of a page. It is escaped."""
    return Markup(_environment().get_template(name).render(**values))  # noqa: S704 - the template escapes


def text(name: str) -> str:
    """Return a file of the templates, such as a style sheet."""
    return resources.files("bulkimg.report").joinpath("templates", name).read_text("utf-8")


def _digest(code: str) -> str:
    return f"sha256-{b64encode(sha256(code.encode()).digest()).decode()}"


@cache
def _environment() -> Environment:
    made = Environment(
        autoescape=True,
        loader=PackageLoader("bulkimg.report"),
        undefined=StrictUndefined,
        finalize=harmless,
        trim_blocks=True,
        keep_trailing_newline=True,
    )
    made.filters |= {"shown": shown, "parts": _parts, "moment": moment, "figure": _figure}
    return made


def moment(seconds: float) -> Markup:
    """Return seconds since the epoch as a time element."""
    stamp = iso_utc(seconds)
    return Markup('<time datetime="{}">{} {} UTC</time>').format(stamp, stamp[:10], stamp[11:19])


def _figure(value: float | None) -> str:
    """Return a number for a table; "" for none or zero."""
    return "" if not value else f"{value:,.0f}" if value >= 100 or value == int(value) else f"{value:.1f}"


def _parts(value: Any, cut: Sequence[int]) -> tuple[str, str, str]:
    """Split a text after its common beginning and before its common end, which are counted in UTF-16 units."""
    raw = shown(value).encode("utf-16-le")
    head, tail = cut[0] * 2, len(raw) - cut[1] * 2
    begin, middle, end = (part.decode("utf-16-le") for part in (raw[:head], raw[head:tail], raw[tail:]))
    return begin, middle, end
