"""What a plugin imports: `hookimpl`, `Row` and `Problem` (docs/reference/plugin-api.md). Its events are the library's.

A plugin is loaded only where it is named. This module is light: it imports no part of the engine.
"""

from bulkimg.plugins.hooks import hookimpl
from bulkimg.plugins.shapes import Problem, Row, Value

__all__ = ["Problem", "Row", "Value", "hookimpl"]
