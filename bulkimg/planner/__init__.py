"""Decide what to send for a manifest's rows and the present images: survey (I/O), diff, guard and undo (pure)."""

from bulkimg.planner.guard import refusal, too_many_missing
from bulkimg.planner.intake import load_rows, load_split
from bulkimg.planner.reading import CannotRead, Reader
from bulkimg.planner.survey import survey
from bulkimg.planner.undo import undo_rows

__all__ = ["CannotRead", "Reader", "load_rows", "load_split", "refusal", "survey", "too_many_missing", "undo_rows"]
