"""Turn a text into a piece of a page: the one place where hidden characters and HTML are made harmless.

Templates use it for every text that they print; code that makes Markup itself must use it too.
"""

from typing import Any

from markupsafe import Markup, escape

from bulkimg.report.difference import clean


def harmless(value: Any) -> Any:
    """Return a text with hidden characters written out and HTML escaped. Markup and what is no text stay."""
    return escape(clean(str(value))) if isinstance(value, str) and not isinstance(value, Markup) else value


def code(text: str | None) -> Markup | None:
    """Return a text as code, or None for none."""
    return Markup("<code>{}</code>").format(harmless(text)) if text else None
