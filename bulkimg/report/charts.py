"""Draw the pictures of a report as SVG.

Colours, fonts and dashes are presentation attributes, not styles: a content policy that forbids inline styles leaves
them as they are. Text and lines use `currentColor`, so that they fit a light and a dark page.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import NamedTuple

from markupsafe import Markup

from bulkimg.report.escaping import harmless
from bulkimg.words import clock_text

WIDTH, HEIGHT = 760, 190  # of the drawing in its own units; the page scales it
LEFT, RIGHT, TOP, BOTTOM = 58, 8, 18, 24  # room for axes and marks
FEW = 5  # percentiles of fewer requests are dots
# Colours that differ clearly on white and on near black (3:1 or more on both), also by most colour-blind people.
PALETTE = {
    "put": "#2f7fc1", "poll": "#c77d1f", "read": "#2a9580", "tag": "#a869c9", "session": "#808891",
    "updated": "#2f8f4e", "unchanged": "#808891", "conflict": "#b07d12", "invalid": "#a869c9", "failed": "#d24a43",
    "drifted": "#c8527f", "unknown": "#c77d1f", "unprocessed": "#5f6b76",
    "p50": "#2f7fc1", "p95": "#c77d1f", "p99": "#d24a43", "in flight": "#2f7fc1",
}  # fmt: skip
DASHES = {"p50": "", "p95": "6 3", "p99": "2 2"}


class Mark(NamedTuple):
    """A numbered mark at a place of the time axis."""

    at: float
    number: int
    text: str


class Frame(NamedTuple):
    """What all pictures of a run share: its time axis, the waits, the marks and the breaks between processes.

    Places on the axis are seconds of work: long times without any request are cut out (`breaks`).
    """

    length: float
    waits: Sequence[tuple[float, float]]
    marks: Sequence[Mark]
    breaks: Sequence[tuple[float, str]]


class Bin(NamedTuple):
    """The values of one bar: where it begins, its length, values by series (None where there is none)."""

    at: float
    seconds: float
    values: Mapping[str, float | None]
    few: bool = False  # percentiles of fewer than FEW requests


def stacked(
    frame: Frame, bins: Sequence[Bin], series: Sequence[str], *, cap: str = "", about: str, title: str
) -> Markup:
    """Draw bars of one colour for each series, on top of each other. `cap` is a series that is drawn as a step line."""
    top = _nice(max((sum(one.values.get(name) or 0 for name in series) for one in bins), default=0))
    limits = [one.values.get(cap) for one in bins] if cap else []
    tops = [limit for limit in limits if limit]
    if tops and max(tops) <= 4 * top:
        top = _nice(max(top, *tops))
    draw = _Drawing(frame, top)
    parts = [draw.axes(_number), *draw.stacks(bins, series)]
    if tops:
        parts.append(draw.steps(bins, cap))
    return draw.svg(title, about, parts, [*series, *([cap] if tops else [])])


def lines(frame: Frame, bins: Sequence[Bin], series: Sequence[str], *, about: str, title: str) -> Markup:
    """Draw a line for each series. Values of few requests are dots."""
    draw = _Drawing(frame, _nice(_usual([one.values.get(name) or 0.0 for one in bins for name in series])))
    parts = [draw.axes(duration), *(part for name in series for part in draw.line(bins, name))]
    return draw.svg(title, about, parts, series)


def areas(frame: Frame, bins: Sequence[Bin], series: str, limit: str, *, about: str, title: str) -> Markup:
    """Draw one series as bars and its limit as a step line."""
    return stacked(frame, bins, [series], cap=limit, about=about, title=title)


class _Drawing:
    """Turns values into places. `top` is the value at the upper edge."""

    def __init__(self, frame: Frame, top: float) -> None:
        self._frame = frame
        self._top = top or 1.0

    def _x(self, at: float) -> float:
        return LEFT + (WIDTH - LEFT - RIGHT) * min(1.0, max(0.0, at / (self._frame.length or 1.0)))

    def _y(self, value: float) -> float:
        return HEIGHT - BOTTOM - (HEIGHT - TOP - BOTTOM) * min(1.0, value / self._top)

    def axes(self, text: Callable[[float], str]) -> Markup:
        """Draw grid, values, times, waits, breaks and marks."""
        parts = [self._wait(*wait) for wait in self._frame.waits]
        for part in (0.0, 0.5, 1.0):
            y = self._y(part * self._top)
            parts.append(_tag("line", x1=LEFT, x2=WIDTH - RIGHT, y1=y, y2=y, stroke="currentColor", stroke_opacity=0.2))
            parts.append(_text(LEFT - 6, y + 4, text(part * self._top), anchor="end"))
        for at in _ticks(self._frame.length):
            anchor = "end" if at > 0.97 * self._frame.length else "middle" if at else "start"
            parts.append(_text(self._x(at), HEIGHT - 6, clock_text(at), anchor=anchor))
        for at, said in self._frame.breaks:
            x = self._x(at)
            dash = {"stroke": "currentColor", "stroke_opacity": 0.6, "stroke_dasharray": "1 3"}
            parts.append(_tag("line", harmless(said), x1=x, x2=x, y1=TOP, y2=HEIGHT - BOTTOM, **dash))
        parts += self._marks()
        return Markup("").join(parts)

    def _wait(self, begin: float, end: float) -> Markup:
        x, width = self._x(begin), max(1.0, self._x(end) - self._x(begin))
        height = HEIGHT - TOP - BOTTOM
        return _tag(
            "rect", Markup("the run waited"), x=x, y=TOP, width=width, height=height, fill="#d24a43", fill_opacity=0.16
        )

    def _marks(self) -> Iterator[Markup]:
        """Yield the marks. The numbers of marks at one time stand next to each other."""
        last = -float("inf")
        for mark in self._frame.marks:
            last = max(self._x(mark.at), last + 15)
            yield self._mark(mark, min(last, WIDTH - 8.0))

    def _mark(self, mark: Mark, place: float) -> Markup:
        x = self._x(mark.at)
        line = _tag("line", x1=x, x2=x, y1=TOP - 2, y2=HEIGHT - BOTTOM, stroke="currentColor", stroke_opacity=0.35)
        dot = _tag(
            "circle", harmless(mark.text), cx=place, cy=8, r=7, fill="none", stroke="currentColor", stroke_opacity=0.6
        )
        return line + dot + _text(place, 11, str(mark.number), anchor="middle", size=10)

    def stacks(self, bins: Sequence[Bin], series: Sequence[str]) -> Iterator[Markup]:
        for index, name in enumerate(series):
            path = []
            for one in bins:
                value = one.values.get(name) or 0
                if value:
                    below = sum(one.values.get(other) or 0 for other in series[:index])
                    left, right = self._x(one.at), max(self._x(one.at + one.seconds), self._x(one.at) + 1)
                    low, high = self._y(below), min(self._y(below + value), self._y(below) - 0.5)
                    path.append(f"M{left:.1f} {low:.1f}V{high:.1f}H{right:.1f}V{low:.1f}z")
            if path:
                yield _tag("path", Markup(name), d="".join(path), fill=PALETTE[name], fill_opacity=0.85)

    def steps(self, bins: Sequence[Bin], name: str) -> Markup:
        path, last = "", None
        for one in bins:
            value = one.values.get(name)
            if value is None:
                last = None
                continue
            x, y = self._x(one.at), self._y(value)
            path += f"M{x:.1f} {y:.1f}" if last is None else "" if y == last else f"H{x:.1f}V{y:.1f}"
            path += f"H{self._x(one.at + one.seconds):.1f}"
            last = y
        return _tag(
            "path", Markup(name), d=path, fill="none", stroke="currentColor", stroke_width=1.5, stroke_dasharray="5 3"
        )

    def line(self, bins: Sequence[Bin], name: str) -> Iterator[Markup]:
        path, before = "", False
        dots: list[Markup] = []
        for one in bins:
            value = one.values.get(name)
            if value is None or one.few:
                before = False
            if value is None:
                continue
            x, y = self._x(one.at + one.seconds / 2), self._y(value)
            if one.few:
                dots.append(_tag("circle", cx=x, cy=y, r=1.8, fill=PALETTE[name]))
                continue
            path += f"{'L' if before else 'M'}{x:.1f} {y:.1f}{'' if before else 'h0.1'}"
            before = True
        look = {"fill": "none", "stroke": PALETTE[name], "stroke_width": 1.6, "stroke_linecap": "round"}
        if DASHES[name]:
            look["stroke_dasharray"] = DASHES[name]
        if path:
            yield _tag("path", Markup(name), d=path, **look)
        yield from dots

    def svg(self, title: str, about: str, parts: Iterable[Markup], legend: Sequence[str]) -> Markup:
        inside = _tag("title", harmless(title)) + _tag("desc", harmless(about)) + Markup("").join(parts)
        return Markup(
            '<svg xmlns="http://www.w3.org/2000/svg" role="img" viewBox="0 0 {w} {h}" width="100%" '
            'font-family="system-ui, sans-serif" font-size="13" fill="currentColor">{inside}</svg>'
        ).format(w=WIDTH, h=HEIGHT, inside=inside)


def key(names: Iterable[str]) -> Markup:
    """Return the legend of a picture as small drawings with names."""
    parts = []
    for name in names:
        if colour := PALETTE.get(name):
            dash = DASHES.get(name)
            shape = (
                _tag("line", x1=0, x2=18, y1=6, y2=6, stroke=colour, stroke_width=3, stroke_dasharray=dash or "none")
                if name in DASHES
                else _tag("rect", x=4, y=1, width=10, height=10, fill=colour, fill_opacity=0.85)
            )
        else:
            shape = _tag(
                "line", x1=0, x2=18, y1=6, y2=6, stroke="currentColor", stroke_width=1.5, stroke_dasharray="5 3"
            )
        drawing = _tag("svg", shape, width=18, height=12, viewBox="0 0 18 12", aria_hidden="true")
        parts.append(Markup('<span class="key">{} {}</span>').format(drawing, harmless(name)))
    return Markup(" ").join(parts)


def _tag(name: str, inside: Markup | None = None, **attributes: object) -> Markup:
    """Return an element. Inside a drawing, text becomes its title."""
    written = Markup("").join(
        Markup(' {}="{}"').format(key.replace("_", "-") if key != "viewBox" else key, _place(value))
        for key, value in attributes.items()
    )
    if inside is None:
        return Markup("<{0}{1}/>").format(Markup(name), written)
    if name in ("rect", "path", "circle", "line"):
        inside = Markup("<title>{}</title>").format(inside)
    return Markup("<{0}{1}>{2}</{0}>").format(Markup(name), written, inside)


def _place(value: object) -> object:
    return f"{value:.4g}" if isinstance(value, float) else harmless(value)


def _text(x: float, y: float, text: str, *, anchor: str, size: int = 13) -> Markup:
    return _tag(
        "text", harmless(text), x=round(x, 1), y=round(y, 1), text_anchor=anchor, font_size=size, fill_opacity=0.75
    )


def _usual(values: Sequence[float]) -> float:
    """Return the largest value, or a smaller one if a few values are so large that all others would be a flat line."""
    ordered = sorted(value for value in values if value)
    if not ordered:
        return 0.0
    usual = 2 * ordered[int(0.95 * (len(ordered) - 1))]
    return usual if ordered[-1] > 4 * usual else ordered[-1]


def _nice(top: float) -> float:
    """Return a round number that is not smaller."""
    if top <= 0:
        return 1.0
    scale = 10.0 ** len(str(int(top))) / 10 if top >= 1 else 1.0
    while top < scale:
        scale /= 10
    return next((step * scale for step in (1, 1.5, 2, 3, 4, 5, 6, 8, 10) if step * scale >= top), 10 * scale)


def _ticks(length: float) -> Iterator[float]:
    steps = (1, 2, 5, 10, 15, 30, 60, 120, 300, 600, 900, 1800, 3600, 7200, 10800, 21600, 43200, 86400)
    step = next((step for step in steps if length / step <= 8), 86400 * (1 + int(length / 86400 / 8)))
    at = 0.0
    while at <= length:
        yield at
        at += step


def duration(seconds: float) -> str:
    """Return a duration as 0, 850 µs, 12 ms or 3.4 s."""
    if seconds <= 0:
        return "0"
    if seconds < 0.001:
        return f"{seconds * 1e6:.0f} µs"
    return f"{seconds * 1000:.3g} ms" if seconds < 0.9995 else f"{seconds:.3g} s"


def _number(value: float) -> str:
    return f"{value:,.0f}" if value >= 10 or value == int(value) else f"{value:.1f}"
