"""Figures that security tests measured, by name. The summary of the test session prints them."""

FIGURES: dict[str, str] = {}


def measured(name: str, figure: str) -> None:
    """Keep a figure for the end of the session."""
    FIGURES[name] = figure
