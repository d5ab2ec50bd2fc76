"""Look at runs while they run: what they are doing now, in the terminal, and as a page. It only reads."""

from bulkimg.live.status import status_of

__all__ = ["status_of"]
