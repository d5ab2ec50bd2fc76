"""Ask before the rows of a campaign are sent: once for all plans, and after each canary."""

from collections.abc import Mapping

from bulkimg.campaign.execute import Questions
from bulkimg.cli import screen
from bulkimg.cli.campaign.opening import Opened
from bulkimg.cli.execute import difference, line_typed, target_with_account
from bulkimg.engine.run import OpenRun
from bulkimg.ledger import stats
from bulkimg.model import CanaryPassed, PlanCounts, iso_utc
from bulkimg.report import plan_line
from bulkimg.words import count


def questions_of(opened: Opened) -> Questions:
    """Return the questions. What is typed before a later question is no answer to it."""
    asked = False

    async def answered(question: str, shown: str, runs: Mapping[str, OpenRun]) -> bool:
        nonlocal asked
        if asked:
            screen.forget_typed()
        asked = True
        return await _answered(question, shown, runs)

    async def plans(found: Mapping[str, PlanCounts]) -> bool:
        images = sum(counts.actions["update"] for counts in found.values())
        where = ", ".join(f"{name} {counts.actions['update']:,}" for name, counts in found.items())
        on = f"{count(images, 'image')} on {count(len(found), 'target')} ({where})"
        question = f"Change {on}?"
        if what := undoing(opened):
            undoes = next(iter(opened.runs.values())).ledger.meta("undoes", {})
            verb = "Redo the changes" if undoes.get("undo_of") else "Put the old values back"
            question = f"{what[0].upper()}{what[1:]}. {verb} on {on}?"
        targets = "\n".join(f"{name}: {target_with_account(opened.runs[name])}" for name in found)
        shown = "\n".join(f"{name}: {plan_line(counts)}" for name, counts in found.items())
        return await answered(f"{targets}\n{question}", shown, {name: opened.runs[name] for name in found})

    async def canary(name: str, what: CanaryPassed) -> bool:
        run = opened.runs[name]
        question = f"Send the other {stats.rows_to_do(run.ledger):,} to {name} ({run.settings.target})?"
        return await answered(
            question, f"{name}: canary: {what.rows:,} of {count(what.rows, 'row')} updated", {name: run}
        )

    return Questions(plans, canary)


def undoing(opened: Opened) -> str:
    """Return the campaign that an undo undoes, with its manifest, time and updated rows in one phrase; "" for others."""
    known = [run.ledger.meta("undoes") for run in opened.runs.values() if run.ledger.meta("undo_of")]
    known = [each for each in known if each]
    if not known or not opened.campaign.facts.get("of"):
        return ""
    begun = min((each["started_at"] for each in known if each["started_at"] is not None), default=None)
    details = [str(known[0]["manifest"])]
    details += [] if begun is None else [iso_utc(begun)[:16].replace("T", " ") + " UTC"]
    details += [
        f"{sum(each['updated'] for each in known):,} updated",
        *([known[0]["note"]] if known[0]["note"] else []),
    ]
    itself = ", which is itself an undo: this redoes its changes" if known[0]["undo_of"] else ""
    return f"undo of campaign {opened.campaign.facts['of']} ({', '.join(details)}){itself}"


async def _answered(question: str, shown: str, runs: Mapping[str, OpenRun]) -> bool:
    screen.prompt(question, shown)
    while (answer := await line_typed()) in {"d", "diff"}:
        lines = [f"{name}: {line}" for name, run in runs.items() for line in difference(run)]
        screen.prompt(question, "\n".join(lines), is_new=True)
    return answer in {"y", "yes"}
