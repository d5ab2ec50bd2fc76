"""Compare the aims for speed and pace with the results in RESULTS.md: `python -m tests.bench.asked`."""

import re

from tests.bench.sections import RESULTS, keep


def rows_of(title: str) -> dict[str, list[str]]:
    """Return the table of a section: its lines by their first cell."""
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


Line = tuple[str, str, str, bool]


def at_least(what: str, asked: float, reached: str) -> Line:
    return (what, f"≥ {asked:g}", reached, number(reached) >= asked)


def at_most(what: str, asked: float, reached: str, unit: str = "") -> Line:
    return (what, f"≤ {asked:g}{unit}", f"{reached}{unit}", number(reached) <= asked)


def peers() -> dict[str, list[str]]:
    """Return the cells of each peer by the first word of its name."""
    return {name.split()[0].rstrip(","): cells for name, cells in rows_of("Throughput beside the peers").items()}


def engine() -> list[Line]:
    found = peers()
    return [
        at_least("times the bare aiohttp loop, the whole process", 1.0, found["bare"][4]),
        at_least("times `curl --parallel`, the whole process", 0.65, found["curl"][4]),
        at_least("times requests with 64 threads, the whole process", 12, found["requests"][4]),
        at_least("times the bare aiohttp loop, sending alone", 1.3, found["bare"][3]),
        at_most("processor's time of a row", 75, found["bulkimg"][2], " µs"),
        at_most("from exec to the first PUT", 0.35, rows_of("Start-up")["the first PUT"][0], " s"),
    ]


def walk() -> list[Line]:
    """Return the figures of a row that is answered 200."""
    found = {what: cells[2] for what, cells in rows_of("The walk of one row").items()}
    return [
        at_most(f"{what} of a clean row, from claim to durable outcome", aim, found[f"{what} to the durable outcome"])
        for what, aim in (("files", 20), ("calls", 45), ("callbacks", 3))
    ]


def scale() -> list[Line]:
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


def adaptive() -> list[Line]:
    found = []
    for workers, (_, p95, _, _, _, share) in rows_of("Concurrency that finds itself").items():
        found += [
            (f"of the best fixed concurrency, {workers} workers", "≥ 0.95", share, number(share) >= 0.95),
            (f"its p95 where a row needs 20 ms, {workers} workers", "≤ 40 ms", f"{p95} ms", number(p95) <= 40),
        ]
    return found


def rate() -> list[Line]:
    found = []
    for cap, (reached, most, spread, _) in rows_of("The rate").items():
        is_kept = number(reached) >= 98 and number(most) <= number(cap)
        what = f"{reached}, most {most}, spread {spread}"
        found.append((f"rate of {cap}/s", "≥ 98 %, never above in any second", what, is_kept))
    return found


def under_load() -> list[Line]:
    """Return the part with the worst result, while two other processes use both cores."""
    busy = [cells for name, cells in rows_of("The rate under load").items() if name.startswith("busy")]
    least = min((cells[0] for cells in busy), key=number)
    sent, arrived, _ = (
        max(int(number(one)) for one in ends) for ends in zip(*(c[1].split("/") for c in busy), strict=True)
    )
    what = f"{least}, most {sent:,}, at the receiver {arrived:,}"
    is_kept = number(least) >= 98 and max(sent, arrived) <= 1000
    return [("rate of 1,000/s, both cores busy", "≥ 98 %, never above in any second", what, is_kept)]


def why() -> list[str]:
    """Return why a result misses its aim, as far as it is known."""
    ours, bare, curl = (peers()[name][2] for name in ("bulkimg", "bare", "curl"))
    found = {int(number(rows)): [number(cell) for cell in cells] for rows, cells in rows_of("What a row costs").items()}
    (few_read, few_sent), (most_read, most_sent) = ([s / n * 1e6 for s in found[n][:2]] for n in (100_000, 10_000_000))
    return [
        f"The engine: a row costs {ours} µs of processor, start and files included, {bare} in the bare loop and {curl} in curl; nginx",
        "shares the two cores. bulkimg does what the bare loop does and besides claims rows on disk before they are sent, compares each",
        "answer with the plan, and writes outcomes with check sums and two result files. curl is C and does nothing but HTTP.",
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
    for what, asked, reached, is_so in [*engine(), *walk(), *scale(), *adaptive(), *rate(), *under_load()]:
        lines.append(f"| {what} | {asked} | {reached} | {'yes' if is_so else '**no**' if asked else 'no'} |")
    keep("What was asked, and what was reached", "\n".join([*lines, "", *why()]))


if __name__ == "__main__":
    main()
