"""Decide what to send for a manifest's rows and the present images: survey (I/O), diff, guard and undo (pure)."""

from bulkimg.plan.guard import refusal, too_many_missing
from bulkimg.plan.intake import take_in
from bulkimg.plan.reading import CannotRead, Reader
from bulkimg.plan.survey import survey
from bulkimg.plan.undo import undo_rows

__all__ = ["CannotRead", "Reader", "refusal", "survey", "take_in", "too_many_missing", "undo_rows"]
