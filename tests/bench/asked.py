"""What was asked of speed and pace, beside what the other sections of RESULTS.md say was reached: `python -m tests.bench.asked`."""

import re

from tests.bench.sections import RESULTS, keep


def rows_of(title: str) -> dict[str, list[str]]:
    """The table of a section: its lines by their first cell."""
    section = re.search(
        rf"^## {re.escape(title)}\n(.*?)(?=^## |\Z)", RESULTS.read_text("utf-8"), re.DOTALL | re.MULTILINE
    )
    if section is None:
        raise SystemExit(f"RESULTS.md has no section «{title}»: run `make bench` first")
    lines = [
        [cell.strip() for cell in line.strip("|").split("|")] for line in section[1].splitlines() if line[:1] == "|"
    ]
    return {line[0]: line[1:] for line in lines[2:]}


def number(cell: str) -> float:
    return float(cell.replace(",", "").rstrip("%"))


def engine() -> list[tuple[str, str, str, bool]]:
    found = rows_of("Throughput beside the peers")
    per_second = {name: number(cells[0]) for name, cells in found.items()}
    bare, curl = (next(n for name, n in per_second.items() if name.startswith(who)) for who in ("bare", "curl"))
    one, two = (
        next(n for name, n in per_second.items() if name.startswith(w)) for w in ("bulkimg,", "bulkimg --processes 2")
    )
    return [
        ("of the bare aiohttp loop", "≥ 0.9", f"{one / bare:.2f}", one / bare >= 0.9),
        ("of it, with `--processes 2`", "", f"{two / bare:.2f}", two / bare >= 0.9),
        ("of curl, with `--processes 2`", "≥ 1.0", f"{two / curl:.2f}", two / curl >= 1.0),
    ]


def scale() -> list[tuple[str, str, str, bool]]:
    found = {int(number(rows)): [number(cell) for cell in cells] for rows, cells in rows_of("What a row costs").items()}
    few, many, most = found[100_000], found[1_000_000], found[10_000_000]
    ratio = (most[0] + most[1]) / (few[0] + few[1]) / 100
    return [
        ("memory at 10,000,000 rows", "≤ 150 MB", f"{most[3]:.0f} MB", most[3] <= 150),
        (
            "memory beside that at 1,000,000",
            "within 10 %",
            f"{most[3] / many[3] - 1:+.1%}",
            abs(most[3] / many[3] - 1) <= 0.1,
        ),
        ("time a row beside that at 100,000", "≤ 1.15", f"{ratio:.2f}", ratio <= 1.15),
        ("resume's scan of 10,000,000 rows", "≤ 20 s", f"{most[6]:.1f} s", most[6] <= 20),
        ("the same with all check sums", "", f"{most[5] + most[6]:.0f} s", most[5] + most[6] <= 20),
        ("ledger", "≤ 350 bytes a row", f"{most[4]:.0f}", most[4] <= 350),
    ]


def adaptive() -> list[tuple[str, str, str, bool]]:
    found = []
    for workers, (_, p95, _, _, _, share) in rows_of("Concurrency that finds itself").items():
        found += [
            (f"of the best fixed concurrency, {workers} workers", "≥ 0.95", share, number(share) >= 0.95),
            (f"its p95 where a row needs 20 ms, {workers} workers", "≤ 40 ms", f"{p95} ms", number(p95) <= 40),
        ]
    return found


def rate() -> list[tuple[str, str, str, bool]]:
    found = []
    for cap, (reached, most, spread, _) in rows_of("The rate").items():
        is_kept = number(reached) >= 98 and number(most) <= number(cap)
        what = f"{reached}, most {most}, spread {spread}"
        found.append((f"rate of {cap}/s", "≥ 98 %, never above in any second", what, is_kept))
    return found


def why() -> list[str]:
    """Of what falls short, as far as it is known."""
    cpu = {name: cells[2] for name, cells in rows_of("Throughput beside the peers").items()}
    bare, curl, two = (
        next(cpu[name] for name in cpu if name.startswith(who)) for who in ("bare", "curl", "bulkimg --processes 2")
    )
    found = {int(number(rows)): [number(cell) for cell in cells] for rows, cells in rows_of("What a row costs").items()}
    (few_read, few_sent), (most_read, most_sent) = ([s / n * 1e6 for s in found[n][:2]] for n in (100_000, 10_000_000))
    return [
        f"The engine: a row costs {two} µs of processor with `--processes 2`, start and files included, {bare} in the bare loop and {curl}",
        "in curl, and there are two cores, which nginx shares. bulkimg does what the bare loop does, through the same aiohttp, and besides",
        "claims rows on disk before they are sent, judges each answer, writes outcomes with check sums and two result files. In one",
        "process all of that shares Python's one core with HTTP; in two it does not, and then the two cores are the bound. curl is C and",
        "needs less for everything it does than aiohttp for HTTP alone.",
        "",
        f"Ten million rows: reading takes {most_read:.0f} µs a row, {few_read:.0f} of a hundred thousand, sending and results {most_sent:.0f} instead of {few_sent:.0f}.",
        "What of it is the disk, and what the ledger's growing trees, was not taken apart.",
        "",
        "Five workers: of seven rows in flight two wait for a worker, and a row that waits takes two service times and what comes on top.",
    ]


def main() -> None:
    lines = [
        "Read out of the sections above by `python -m tests.bench.asked`, which has their machine, date and commands. What has no",
        "figure in «asked» stands beside one that has.",
        "",
        "| | asked | reached | |",
        "|---|---|---|---|",
    ]
    for what, asked, reached, is_so in [*engine(), *scale(), *adaptive(), *rate()]:
        lines.append(f"| {what} | {asked} | {reached} | {'yes' if is_so else '**no**' if asked else 'no'} |")
    keep("What was asked, and what was reached", "\n".join([*lines, "", *why()]))


if __name__ == "__main__":
    main()
