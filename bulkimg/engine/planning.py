"""Make the plan of an open run and have it approved, before anything is sent."""

from collections.abc import Awaitable, Callable

from bulkimg.applier import Ending
from bulkimg.engine.close import plan_page
from bulkimg.engine.interrupt import Interrupt
from bulkimg.engine.run import OpenRun
from bulkimg.errors import Exit
from bulkimg.ledger import plans, stats
from bulkimg.model import CanaryPassed, Observer, PlanMade, Surveyed
from bulkimg.planner import CannotRead, Reader, refusal, survey, too_many_missing

_WITHOUT_SURVEY = "To send every row without a diff and without undo, add --no-survey"
Approve = Callable[[PlanMade | CanaryPassed], Awaitable[bool]]


class Planning:
    """Make one run's plan.

    `checksum` is the beginning of the digest of the plan that was reviewed. `plan_only` needs no approval. `missing` is
    the number of images that the survey did not find.
    """

    def __init__(
        self,
        run: OpenRun,
        observe: Observer,
        interrupt: Interrupt,
        approve: Approve | None,
        *,
        checksum: str | None,
        plan_only: bool,
    ) -> None:
        self._run = run
        self._observe = observe
        self._interrupt = interrupt
        self._approve = approve
        self._checksum = checksum
        self._plan_only = plan_only
        self.missing = 0

    async def plan(self, reader: Reader) -> Ending | None:
        """Make the plan if there is none, and have it approved if no row was sent.

        Returns why nothing may be sent, or None.
        """
        ledger, settings = self._run.ledger, self._run.settings
        if ledger.meta("state") == "ready" and (stop := await self._make(reader)):
            return stop
        if ledger.meta("state") != "planned":
            return None
        if self._plan_only or self._approve:  # so that a person can read it
            plan_page(self._run)
        counts = self._run.planned = plans.counts(ledger)
        self._observe(PlanMade(counts))
        if self._checksum is not None and not counts.digest.startswith(self._checksum.lower()):
            why = f"--checksum {self._checksum}: the plan has another checksum ({counts.digest}), so nothing was sent; review it again"
            return Ending(Exit.REFUSED, why, resumable=False)
        if why := too_many_missing(counts, settings.own_max_errors):
            return Ending(Exit.ERROR_LIMIT, why, resumable=False)
        self.missing = counts.actions["missing"]
        if self._plan_only or not counts.actions["update"]:
            return None
        if refused := refusal(counts, settings.own_max_changes, settings.allow_field):
            return Ending(Exit.REFUSED, f"{refused}; review {plan_page(self._run)}", resumable=False)
        return await approved(PlanMade(counts), self._approve, self._interrupt)

    async def _make(self, reader: Reader) -> Ending | None:
        ledger, settings = self._run.ledger, self._run.settings
        if not settings.survey and ledger.meta("has_expectations"):
            return Ending(
                Exit.REFUSED,
                "the rows have if_ columns, which need the images' present values, and --no-survey does not read them; remove --no-survey",
                resumable=False,
            )
        if settings.survey:
            try:
                return await self._interrupt.until_stopped(self._survey(reader))
            except CannotRead as why:
                return Ending(Exit.TARGET, f"{why}; nothing was sent. {_WITHOUT_SURVEY}")
        with ledger.transaction():
            plans.make(ledger, settings.target, surveyed=False)
        return None

    async def _survey(self, reader: Reader) -> None:
        settings, images = self._run.settings, stats.images_to_do(self._run.ledger)
        looked = 0

        def more(count: int) -> None:
            nonlocal looked
            looked += count
            self._observe(Surveyed(looked, images))

        replaces = settings.tags_mode == "replace"
        await survey(self._run.ledger, reader, settings.target, replace_tags=replaces, looked=more)


async def approved(what: PlanMade | CanaryPassed, approve: Approve | None, interrupt: Interrupt) -> Ending | None:
    """Ask for approval. Returns why nothing may be sent, or None."""
    if approve is None:
        return None
    answers: list[bool] = []

    async def ask(approve: Approve) -> None:
        answers.append(await approve(what))

    if stop := await interrupt.until_stopped(ask(approve)):
        return stop
    more = "more " if isinstance(what, CanaryPassed) else ""
    return None if answers == [True] else Ending(Exit.REFUSED, f"stopped at your request; nothing {more}was sent")
