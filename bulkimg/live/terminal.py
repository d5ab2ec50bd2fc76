"""Draw a run as lines for a terminal: verdict, counts, bar, requests a second, rows in flight, events, causes."""

import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any

from rich.cells import cell_len
from rich.text import Text

from bulkimg.live.watching import Look
from bulkimg.model import Sample, iso_utc
from bulkimg.report.difference import clean
from bulkimg.report.sentences import worker_lines
from bulkimg.words import clock_text, count, rate_text

CAUSES = 5
WORKERS = 8  # lines
BAR = 60  # cells at most
PICTURE = 120  # seconds of the sparkline at most
_HEIGHTS = "▁▂▃▄▅▆▇█"
_PLAIN_HEIGHTS = "_.-=*%#@"
_COLOURS = {
    "updated": "green", "unchanged": "bright_black", "conflict": "yellow", "invalid": "magenta", "failed": "red",
    "drifted": "magenta", "unknown": "yellow", "unprocessed": "bright_black",
}  # fmt: skip
CauseLine = Callable[[Mapping[str, Any]], str]


def frame(look: Look, width: int, cause_line: CauseLine, *, ascii_only: bool = False, now: float = 0.0) -> list[Text]:
    """Return the lines, none wider than `width`. Nothing in them is obeyed by a terminal."""
    status = look.status
    lines = [
        Text.assemble(("run ", "dim"), (one_line(status["run_id"]), "bold"), f"  {_sentence(look)}"),
        Text(one_line(f"{status['target'] or '-'}  {status['manifest'] or ''}".rstrip()), "dim"),
        *_progress(look, width, ascii_only=ascii_only),
        *_counts(status, width),
        *_pace(look, width, ascii_only=ascii_only, now=now or time.time()),
        *(Text(one_line(line)) for line in worker_lines(status["workers"], WORKERS)),
        *(Text(one_line(f"{iso_utc(event.at)[11:19]}  {event.text}"), "dim") for event in look.events),
        *(Text(one_line(cause_line(cause)), "yellow") for cause in status["causes"][:CAUSES]),
    ]
    if more := len(status["causes"]) - CAUSES:
        lines += [Text(f"… and {more} more causes", "yellow")] if more > 0 else []
    if status["next"]:
        lines.append(Text(one_line(f"next: {status['next']}")))
    return [_cut(line, width) for line in lines]


def plain(look: Look) -> str:
    """Return the run in one line, for a log."""
    status = look.status
    counts = [f"{number:,} {name}" for name, number in status["counts"].items() if number]
    living = [f"{status['in_flight']:,} in flight"] if status["running"] else []
    rate = [f"{_requests(look.samples[-1]):,.0f} requests/s"] if look.samples and status["running"] else []
    said = f"{look.settled:,} of {count(status['rows'], 'row')}"
    return one_line("; ".join([f"{status['state']}: {said}", ", ".join([*counts, *rate, *living])]).removesuffix("; "))


def one_line(text: Any) -> str:
    """Return a text that a terminal shows and does not obey, in one line."""
    return str(clean(str(text))).replace("\n", "\\n")


def _sentence(look: Look) -> str:
    status = look.status
    if not status["running"]:
        return str(status["state"])
    if status["plan"]:
        return "planned, not sent yet"
    left = ""
    if status["rows_per_s"] and 0 < look.settled < status["rows"]:
        left = f", about {clock_text((status['rows'] - look.settled) / status['rows_per_s'])} left"
    return f"{status['state']}{left}"


def _progress(look: Look, width: int, *, ascii_only: bool) -> Iterator[Text]:
    rows, settled = int(look.status["rows"]), look.settled
    if not rows:
        return
    done = rows if not look.status["running"] and look.status["state"] == "done" else settled
    said = f" {100 * done // rows} %  {done:,} of {count(rows, 'row')}"
    room = min(BAR, width - len(said))
    if room < 5:
        yield Text(said.strip())
        return
    full = round(room * done / rows)
    done_mark, open_mark = ("=", ".") if ascii_only else ("━", "─")
    yield Text.assemble((done_mark * full, "green"), (open_mark * (room - full), "bright_black"), said)


def _counts(status: Mapping[str, Any], width: int) -> Iterator[Text]:
    """Yield the counts, on as many lines as they need."""
    if status["plan"]:
        yield Text(one_line(status["plan"]))
        return
    parts = [(f"{number:,} {name}", _COLOURS.get(name, "")) for name, number in status["counts"].items() if number]
    if status["running"]:
        parts += [(f"{status['in_flight']:,} in flight", "cyan"), (f"{status['waiting']:,} waiting", "bright_black")]
    yield from _flowed(parts, width)


def _flowed(parts: Iterable[tuple[str, str]], width: int) -> Iterator[Text]:
    line = Text()
    for text, style in parts:
        if line and cell_len(line.plain) + 2 + len(text) > width:
            yield line
            line = Text()
        line.append("  " if line else "")
        line.append(text, style)
    if line:
        yield line


def _requests(sample: Sample) -> float:
    return sum(sample.requests.values()) / max(sample.seconds, 1)


def _pace(look: Look, width: int, *, ascii_only: bool, now: float) -> Iterator[Text]:
    """Yield requests a second against their cap with a picture of the newest seconds, and the limit of rows in flight."""
    if not look.samples:
        return
    last = look.samples[-1]
    cap = "no cap" if last.rate is None else f"cap {rate_text(last.rate)}"
    living = bool(look.status["running"])
    end = max(now - 1, last.at) if living else last.at
    values = _by_second(look.samples, end, PICTURE)
    present = sum(values[-3:]) / 3 if living else sum(values) / len(values)
    said = f"{present:,.0f} requests/s ({cap}), limit {last.concurrency:,} in flight  "
    room = max(0, min(PICTURE, width - len(said)))
    yield Text.assemble(said, (sparkline(values[-room:] if room else [], last.rate, ascii_only=ascii_only), "cyan"))


def _by_second(samples: Sequence[Sample], end: float, most: int) -> list[float]:
    """Return the requests of every second up to `end`, 0 where there were none; at least three seconds."""
    length = max(3, min(most, int(end) - int(samples[0].at) + 1))
    begin = int(end) - length + 1
    found = [0.0] * length
    for sample in samples:
        for second in range(sample.seconds):
            if 0 <= (at := int(sample.at) + second - begin) < length:
                found[at] = _requests(sample)
    return found


def sparkline(values: Sequence[float], cap: float | None, *, ascii_only: bool = False) -> str:
    """Return one character for each value. The highest stands for the cap, or for the largest value if that is more."""
    heights = _PLAIN_HEIGHTS if ascii_only else _HEIGHTS
    top = max([*values, cap or 0.0, 1.0] if cap and cap <= 4 * max(values, default=0.0) else [*values, 1.0])
    return "".join(heights[min(7, int(8 * value / top))] if value else heights[0] for value in values)


def _cut(line: Text, width: int) -> Text:
    line.no_wrap = True
    if cell_len(line.plain) > width:
        line.truncate(width, overflow="ellipsis")
    return line
