"""Draw the figures of the bench as SVG: bars, and lines over a number. The files are text, so a diff shows changes."""

from collections.abc import Mapping, Sequence
from html import escape
from pathlib import Path

WIDTH, HEIGHT, LEFT, BOTTOM, TOP = 760, 340, 64, 44, 40
COLOURS = ("#1f6f8b", "#d1495b", "#66a182", "#8d6a9f", "#edae49")
Points = Sequence[tuple[float, float]]


def bars(path: Path, title: str, unit: str, values: Mapping[str, float]) -> None:
    """Draw one horizontal bar for each value, the first in its own colour. The longest fills the picture."""
    most = max(values.values())
    parts = []
    for number, (name, value) in enumerate(values.items()):
        y = TOP + 14 + number * 48
        length = 440 * value / most
        parts.append(_text(LEFT + 190, y + 18, name, "end"))
        parts.append(
            f'<rect x="{LEFT + 200}" y="{y}" width="{length:.1f}" height="28" fill="{COLOURS[min(number, 1)]}"/>'
        )
        parts.append(_text(LEFT + 206 + min(length, 380), y + 18, f"{value:,.0f} {unit}"))
    _write(path, title, parts, TOP + 30 + 48 * len(values))


def lines(
    path: Path,
    title: str,
    across: str,
    up: str,
    series: Mapping[str, Points],
    steps: Mapping[str, Points] | None = None,
) -> None:
    """Draw each series as a line. `steps` are drawn as dashed stairs."""
    everything = [*series.items(), *(steps or {}).items()]
    right = max(x for _, points in everything for x, _ in points)
    most = 1.08 * max(y for _, points in everything for _, y in points)

    def place(x: float, y: float) -> tuple[float, float]:
        return LEFT + (WIDTH - LEFT - 20) * x / right, HEIGHT - BOTTOM - (HEIGHT - BOTTOM - TOP) * y / most

    parts = []
    for share in (0, 0.25, 0.5, 0.75, 1):
        x, y = place(right * share, most * share)
        parts.append(f'<line x1="{LEFT}" y1="{y:.1f}" x2="{WIDTH - 20}" y2="{y:.1f}" stroke="#ddd"/>')
        parts.append(_text(LEFT - 6, y + 4, f"{most * share:,.0f}", "end"))
        parts.append(_text(x, HEIGHT - BOTTOM + 16, f"{right * share:,.0f}", "middle"))
    for number, (name, points) in enumerate(everything):
        stairs = name in (steps or {})
        drawn = _stairs(points, right) if stairs else points
        way = " ".join(f"{x:.1f},{y:.1f}" for x, y in (place(*point) for point in drawn))
        dash = ' stroke-dasharray="5 4"' if stairs else ""
        colour = COLOURS[number % len(COLOURS)]
        parts.append(f'<polyline points="{way}" fill="none" stroke="{colour}" stroke-width="1.6"{dash}/>')
        parts.append(f'<rect x="{LEFT + 8 + 180 * number}" y="{TOP - 8}" width="12" height="4" fill="{colour}"/>')
        parts.append(_text(LEFT + 26 + 180 * number, TOP - 2, name))
    parts.append(_text((WIDTH + LEFT) / 2, HEIGHT - 8, across, "middle"))
    parts.append(_text(8, TOP - 22, up))
    _write(path, title, parts, HEIGHT)


def _stairs(points: Points, right: float) -> Points:
    ends = [*(x for x, _ in points[1:]), right]
    return [corner for (x, y), end in zip(points, ends, strict=True) for corner in ((x, y), (end, y))]


def _text(x: float, y: float, text: str, anchor: str = "start") -> str:
    return f'<text x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}">{escape(text)}</text>'


def _write(path: Path, title: str, parts: Sequence[str], height: float) -> None:
    style = "text { font: 12px sans-serif; fill: #333 }"
    path.write_text(
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {height:.0f}" role="img">'
        f"<title>{escape(title)}</title><style>{style}</style>"
        f'<rect width="{WIDTH}" height="{height:.0f}" fill="white"/>' + "\n".join(["", *parts, "</svg>", ""])
    )
