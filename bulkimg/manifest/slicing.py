"""Leave out what `--skip-rows`, `--where` and `--max-rows` do not choose."""

from collections.abc import Mapping

from bulkimg.manifest.columns import Columns
from bulkimg.settings import Settings


class Slice:
    """Counts the records: `seen` are all so far, `left_out` those that the options leave out."""

    def __init__(self, settings: Settings, columns: Columns) -> None:
        self._skip, self._limit = settings.skip_rows, settings.max_rows
        self._columns = columns
        self.seen = 0
        self.left_out = 0

    @property
    def counts_rows(self) -> bool:
        """Return whether an option chooses by number, so that every record has to be counted."""
        return bool(self._skip) or self._limit is not None

    def leaves_out(self, texts: Mapping[str, str] | None) -> bool:
        """Return whether the next record is left out. None is an unreadable one, which --where does not leave out."""
        self.seen += 1
        out = (
            self.seen <= self._skip
            or (texts is not None and not self._columns.wanted(texts))
            or (self._limit is not None and self.seen - self.left_out > self._limit)
        )
        self.left_out += out
        return out
