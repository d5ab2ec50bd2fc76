"""Decide what follows from what one step of a row showed. Pure and total; the loop only obeys.

A row is sent (PUT). Where its answer is lost or not certain, the job is asked (ASK), a running job is polled (WAIT), and the image
is read (READ). A row that is `updated` may need more: fields that its answer did not carry (CONFIRM), and its tags (TAGS).
"""

from enum import Enum, auto
from typing import NamedTuple, assert_never

from bulkimg.applier.judge import Next, Verdict
from bulkimg.model import TAGS, Claim, Status

IS_IT_THERE = "check that the server is running and --endpoint is right"
CHECK_THE_IMAGE = "check the image, or send the row again with bulkimg retry"


class Step(Enum):
    """What can be done for a row; each is one question to the server, repeated until it answers."""

    PUT = auto()
    ASK = auto()  # ask what became of the job
    WAIT = auto()  # poll the job until it has a result
    READ = auto()  # read the image
    CONFIRM = auto()  # read the fields that no answer carried
    TAGS = auto()  # read the tags, and set what is missing


class Settle(NamedTuple):
    """The row has its outcome."""

    verdict: Verdict


class Retry(NamedTuple):
    """Another attempt: later, or at once where the reason is the run's and not the row's."""

    verdict: Verdict


class Resolve(NamedTuple):
    """Take this step next. `so_far` is what is known of the attempt; `last_try`: no other attempt follows it."""

    step: Step
    so_far: Verdict
    last_try: Verdict | None = None


class Stop(NamedTuple):
    """No row of this run can succeed."""

    verdict: Verdict


Decision = Settle | Retry | Resolve | Stop


class Known(NamedTuple):
    """What is known when a step has been taken. `maybe_applied`: one of the row's earlier attempts may have been."""

    claim: Claim
    so_far: Verdict
    last_try: Verdict | None = None
    maybe_applied: bool = False
    jobs_exist: bool = False  # this server answers 202
    can_read: bool = True  # as far as it is known
    reached: bool = True  # the server has answered something


NOTHING = Verdict(Next.ASK, maybe_applied=True)  # what is known of an attempt that an earlier process left open
JOB_LOST = Verdict(
    Next.ASK,
    None,
    "JOB_TIMEOUT",
    "the server accepted the job, but it has no result yet",
    CHECK_THE_IMAGE,
    202,
    maybe_applied=True,
)


def first_step(claim: Claim) -> Resolve:
    """What to do with a claimed row: an attempt that an earlier process left open is asked about before anything is sent."""
    return Resolve(Step.ASK if claim.interrupted else Step.PUT, NOTHING)


def decide(known: Known, step: Step, verdict: Verdict) -> Decision:
    """What follows from the verdict on a step."""
    match step:
        case Step.PUT:
            return _after_put(known, verdict)
        case Step.ASK:
            return _after_ask(known, verdict)
        case Step.WAIT:
            return _after_wait(known, verdict)
        case Step.READ:
            return _attempted(known, _shown_by_image(known.so_far, verdict), image_read=True)
        case Step.CONFIRM | Step.TAGS:
            return _completed(known, verdict, step)
        case _:
            assert_never(step)


def give_up(known: Known, verdict: Verdict) -> Decision:
    """The tries are spent: `failed`, unless one of them may have been applied."""
    if known.maybe_applied or verdict.maybe_applied:
        return _last_look(verdict)
    return Settle(verdict._replace(status=Status.FAILED))


def names_to_confirm(claim: Claim, verdict: Verdict) -> set[str]:
    """The fields of an `updated` row to read back: those that nothing has shown, and the boot mode that goes with an architecture."""
    names = {name for name in verdict.unconfirmed if name not in TAGS}
    if claim.before is not None and "architecture" in claim.fields:
        names.add("systemTags")
    return names


def _after_put(known: Known, verdict: Verdict) -> Decision:
    match verdict.next:
        case Next.ASK:
            return Resolve(Step.ASK, verdict)
        case Next.READ:
            return Resolve(Step.READ, verdict)
        case Next.WAIT:
            return Resolve(Step.WAIT, verdict)
        case _:
            return _attempted(known, verdict)


def _after_ask(known: Known, verdict: Verdict) -> Decision:
    """What the job says; where it cannot say, the image is read."""
    so_far = known.so_far
    if verdict.next is Next.WAIT and verdict.http_status == 202:
        return Resolve(Step.WAIT, so_far, known.last_try)
    if verdict.next not in (Next.WAIT, Next.READ):
        return _attempted(known, verdict)
    if so_far.status is Status.FAILED and known.jobs_exist and verdict.http_status == 404:
        return _attempted(known, so_far._replace(next=Next.SETTLED))  # the refusal is true: it never became a job
    if verdict.next is Next.WAIT:
        so_far = so_far._replace(from_server=False)  # there may be a job, whatever the server said
    return Resolve(Step.READ, verdict if verdict.status is Status.DRIFTED else so_far, known.last_try)


def _after_wait(known: Known, verdict: Verdict) -> Decision:
    if verdict is JOB_LOST or verdict.next is Next.READ:
        return Resolve(Step.READ, verdict, known.last_try)
    return _attempted(known, verdict)


def _shown_by_image(so_far: Verdict, verdict: Verdict) -> Verdict:
    """The verdict on an attempt in doubt, once the image has been read. A refusal in doubt stands."""
    if verdict.next is Next.HALT:
        return verdict
    if so_far.status is Status.FAILED and verdict.status is not Status.UPDATED:
        return so_far._replace(next=Next.SETTLED)
    if so_far.status is Status.DRIFTED and verdict.status is None:
        return so_far._replace(next=Next.SETTLED, after=verdict.after or so_far.after)
    if verdict.next is Next.SETTLED:
        return verdict
    if verdict.next in (Next.NOT_APPLIED, Next.NOT_SHOWN) and so_far is not JOB_LOST:
        message = f"{so_far.message or 'no result'}; {verdict.message}"
        again = so_far._replace(next=Next.AGAIN, code=so_far.code or "NOT_APPLIED", message=message)
        return again if verdict.next is Next.NOT_APPLIED else again._replace(from_server=False, maybe_applied=True)
    return unknown(so_far)


def _attempted(known: Known, verdict: Verdict, *, image_read: bool = False) -> Decision:
    """The attempt has come to its end."""
    if known.claim.interrupted and not known.reached:
        return Stop(verdict._replace(status=None, code="NOT_CONNECTED", message="cannot connect", hint=IS_IT_THERE))
    if known.last_try is not None:
        if verdict.next is Next.AGAIN and verdict.job_used and not image_read:
            return Resolve(Step.READ, verdict, known.last_try)
        return _ended(known, known.last_try, verdict)
    verdict = again_if_unknown(verdict)
    match verdict.next:
        case Next.SETTLED if verdict.status is Status.UPDATED:
            return _completed(known, verdict, None)
        case Next.SETTLED if verdict.status is Status.FAILED and verdict.sent and known.maybe_applied:
            return _last_look(verdict)
        case Next.SETTLED:
            return Settle(verdict)
        case Next.HALT:
            return Stop(verdict)
        case _:
            return Retry(verdict)


def _last_look(verdict: Verdict) -> Decision:
    """The end of a row whose tries are spent while one of them may have been applied: what job and image show.

    An error may hide a job that runs, so the job is asked first, unless the last try has none any more.
    """
    step = Step.READ if verdict.job_used else Step.ASK
    return Resolve(step, verdict._replace(maybe_applied=True), last_try=verdict)


def _ended(known: Known, last_try: Verdict, found: Verdict) -> Decision:
    """The server's own refusal of the last try stands where no earlier one is in doubt."""
    if found.next is Next.HALT:
        return Stop(found)
    if found.status in (Status.UPDATED, Status.DRIFTED):
        return _completed(known, found, None)
    if found.from_server and not known.maybe_applied and found.next is Next.AGAIN:
        return Settle(last_try._replace(next=Next.SETTLED, status=Status.FAILED))
    return Settle(unknown(last_try))


def _completed(known: Known, verdict: Verdict, done: Step | None) -> Decision:
    """What is left to do for a row that is `updated`; `done` is the last step that was taken for it."""
    if verdict.next is Next.HALT:
        return Stop(verdict)
    if verdict.status is not Status.UPDATED:
        return Settle(verdict)
    if done is None and known.can_read and names_to_confirm(known.claim, verdict):
        return Resolve(Step.CONFIRM, verdict, known.last_try)
    if done is not Step.TAGS and any(kind in known.claim.fields for kind in TAGS):
        return Resolve(Step.TAGS, verdict, known.last_try)
    return Settle(verdict)


def again_if_unknown(verdict: Verdict) -> Verdict:
    """A row whose outcome is not known is sent again: its values are absolute. Its tries count like all others.

    One whose job was accepted and has no result is not: the job may still come to its turn.
    """
    if verdict.status is not Status.UNKNOWN or verdict.code == JOB_LOST.code or not verdict.sent:
        return verdict
    return verdict._replace(next=Next.AGAIN, status=None, maybe_applied=True)


def unknown(so_far: Verdict) -> Verdict:
    """End a row whose outcome is not known."""
    return so_far._replace(
        next=Next.SETTLED,
        after=None,
        status=Status.UNKNOWN,
        code=so_far.code or "UNKNOWN",
        message=f"{so_far.message or 'no clear answer'}; outcome not known",
        hint=CHECK_THE_IMAGE,
    )
