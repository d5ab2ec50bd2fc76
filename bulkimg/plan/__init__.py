"""A manifest's rows → what will be sent."""

from bulkimg.plan.intake import take_in

__all__ = ["take_in"]
