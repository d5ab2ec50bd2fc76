"""Tell others about a run: hooks, webhooks, apprise, healthchecks. They are those that the user named, and no others."""

from bulkimg.notify.attendants import Attendants, Tell
from bulkimg.notify.earlier import End, last_end, own_end

__all__ = ["Attendants", "End", "Tell", "last_end", "own_end"]
