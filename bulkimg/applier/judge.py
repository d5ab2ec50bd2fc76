"""Judge answers: (answer, what the row asks for) → verdict. Pure and total; the journey only obeys.

A row is `updated` only on an answer that carries its own image with the values asked for; `failed` only on the server's
own refusal; anything uncertain is checked, never guessed (docs/dev/reliability.md, invariants 5–7).
"""

from collections.abc import Mapping, Sequence
from enum import Enum, auto
from typing import Any, NamedTuple

from bulkimg.model import SERVER_TRIMS, TAGS, Claim, Fields, Seen, Status, as_stored
from bulkimg.planner.diff import changed_since, left_to_send, redacted, show
from bulkimg.zstack import Answer
from bulkimg.zstack.rules import CODES, OTHER_CODE, TEXTS, Move, Rule, rule_for_status
from bulkimg.zstack.wire import (
    TURN_LOST,
    error_of,
    inventories_of,
    inventory_of,
    job_of,
    names_another,
    page_title,
    printable,
)

SEEN = "confirmed by reading the image"
_DRIFT_HINT = (
    "check the image: another client may have changed it at the same time, or the server does not keep this value"
)
_OF_PROXIES = frozenset({502, 503, 504})  # with a page; the API itself answers in JSON
MOST_EVIDENCE = 4096  # characters: twice the longest field


class Next(Enum):
    """What follows from a verdict."""

    SETTLED = auto()  # the row has its outcome
    WAIT = auto()  # the job runs: poll it later
    ASK = auto()  # ask by the job's uuid
    READ = auto()  # ask by reading the image
    AGAIN = auto()  # send again
    RENEW = auto()  # log in again, then send again
    OTHER_KEY = auto()  # send again with the other spelling
    HALT = auto()  # stop the run
    NOT_APPLIED = auto()  # reading shows that the change is not there
    NOT_SHOWN = auto()  # reading shows no value where the change would have left one
    CANNOT_TELL = auto()  # reading is not possible here


class Verdict(NamedTuple):
    """What follows, and the evidence.

    `failure_id`: what the pace returned for a PUT that met trouble.
    """

    next: Next
    status: Status | None = None
    code: str = ""
    message: str = ""
    hint: str = ""
    http_status: int | None = None
    maybe_applied: bool = False
    job_used: bool = False  # the job's uuid has been consumed: another attempt needs a new one
    sent: bool = True  # bytes may have gone out
    from_server: bool = False  # the server's own JSON error, not a proxy's page or a broken connection
    failure_id: int = 0
    unconfirmed: tuple[str, ...] = ()  # fields of an `updated` row that nothing has shown yet
    after: Seen | None = None


def is_plain(claim: Claim) -> bool:
    """Whether one answer can settle the row: nothing of it was sent before, and its values are as a server keeps them."""
    if claim.interrupted or claim.doubtful or not claim.text.isascii() or not claim.text:
        return False
    if claim.before is not None and "architecture" in claim.fields:
        return False
    return all(
        type(value) is bool or (type(value) is str and value == value.strip(SERVER_TRIMS))
        for value in claim.fields.values()
    )


def is_clean(answer: Answer, claim: Claim) -> bool:
    """Whether the answer alone settles a plain row: 200, its image, and every value that was asked for."""
    if answer.status != 200:
        return False
    inventory = inventory_of(answer.json())
    return inventory is not None and inventory.get("uuid") == claim.uuid and claim.fields.items() <= inventory.items()


def judge_update(answer: Answer, claim: Claim) -> Verdict:
    """The answer to a PUT."""
    verdict = _judge_update(answer, claim)
    return verdict._replace(failure_id=answer.failure_id) if answer.failure_id else verdict


def _judge_update(answer: Answer, claim: Claim) -> Verdict:
    if answer.status is None:
        return _no_answer(answer)
    body = answer.json()
    if answer.status == 200:
        return _by_inventory(body, claim, answer.status) or _unbound(answer)
    if answer.status == 202:
        return Verdict(Next.WAIT, http_status=202) if job_of(body) == claim.job_uuid else _unbound(answer)
    verdict = _by_rule(answer, body)
    if verdict.status is not Status.FAILED:
        return verdict
    if names_another(answer.text, claim.uuid):
        return _unbound(answer)
    # A refusal that names no image may be a proxy's, or another row's. Where jobs exist, one that was never created proves
    # it; elsewhere the image shows that nothing was applied. It is kept, and asked about.
    names_ours = claim.uuid in answer.text or claim.job_uuid in answer.text
    return verdict if names_ours else verdict._replace(next=Next.ASK)


def judge_poll(answer: Answer, claim: Claim) -> Verdict:
    """The answer to a poll of the row's job."""
    if answer.status is None:
        return Verdict(Next.WAIT, code=answer.failure, message=answer.detail)
    body = answer.json()
    if answer.status == 200:
        return _by_inventory(body, claim, 200) or _accepted(200)
    if answer.status == 202:
        return Verdict(Next.WAIT, http_status=202)
    error = error_of(body)
    if answer.status == 503 and error:
        if names_another(answer.text, claim.uuid):
            return _accepted(503)
        return _by_code(error.code, error.text, answer, job_used=True)
    rule = rule_for_status(answer.status)
    if rule.move in (Move.AGAIN, Move.HOLD):
        return Verdict(Next.WAIT, code=f"HTTP_{answer.status}", http_status=answer.status)
    return _accepted(answer.status)


def judge_read(answer: Answer, claim: Claim) -> Verdict:
    """The image as it is now, compared with what the row asks for."""
    if answer.status is None:
        return Verdict(Next.CANNOT_TELL, code=answer.failure, message=answer.detail)
    body = answer.json()
    error = error_of(body)
    if answer.status == 503 and error and error.code == "ID.1001":
        return Verdict(Next.RENEW, code=error.code, http_status=503)
    images = inventories_of(body) if answer.status == 200 else None
    if images == []:
        message = "the server has no image with this uuid"
        return Verdict(Next.SETTLED, Status.FAILED, "NO_SUCH_IMAGE", message, CODES["SYS.1003"].hint, 200)
    if images is None or len(images) != 1 or images[0].get("uuid") != claim.uuid:
        return Verdict(Next.CANNOT_TELL, code=f"HTTP_{answer.status}", http_status=answer.status)
    missing, different = _compare(claim.fields, images[0])
    if different:
        message = f"the image shows other values in {', '.join(different)}"
        return Verdict(Next.NOT_APPLIED, http_status=200, message=message, after=_shown(claim.fields, images[0]))
    if len(missing) == len(claim.fields) and all(name in TAGS for name in missing):
        return Verdict(Next.CANNOT_TELL, http_status=200)
    # Servers leave out what is null (docs/dev/protocol.md §1), so a value that was asked for and is not there was not applied; some
    # server may never show the field. Either way nothing is confirmed.
    if absent := [name for name in missing if name not in TAGS and as_stored(claim.fields[name]) != ""]:
        message = f"the image shows no value in {', '.join(absent)}"
        return Verdict(Next.NOT_SHOWN, http_status=200, message=message, after=_shown(claim.fields, images[0]))
    verdict = Verdict(Next.SETTLED, Status.UPDATED, message=SEEN, http_status=200, unconfirmed=tuple(missing))
    return verdict._replace(after=_shown(claim.fields, images[0]))


def judge_look(claim: Claim, image: Mapping[str, Any] | None, *, doubtful: bool, replace_tags: bool) -> Verdict | None:
    """The image just before the row is sent, compared with its plan: None lets it be sent, anything else ends the row.

    `doubtful`: an earlier attempt may have been applied, so the change that the image shows may be ours or another client's.
    """
    unsent = Verdict(Next.SETTLED, http_status=None, sent=False)
    if image is None:
        message, hint = "the image no longer exists on the server", CODES["SYS.1003"].hint
        return unsent._replace(status=Status.FAILED, code="NO_SUCH_IMAGE", message=message, hint=hint)
    before = claim.before or {}
    if changed := changed_since(before, claim.fields, image, replace_tags=replace_tags, partly=doubtful):
        said = (
            f"{name} was {show(before[name])} in the plan and is {show(redacted(image, name))} now" for name in changed
        )
        status = Status.UNKNOWN if doubtful else Status.CONFLICT
        message, hint = (
            "; ".join(said),
            "the image was changed after the plan was made; make a new plan to change it",
        )
        return unsent._replace(status=status, code="CHANGED_SINCE_PLAN", message=message, hint=hint)
    if not left_to_send(claim.fields, image, replace_tags=replace_tags):
        if doubtful:
            return Verdict(
                Next.SETTLED,
                Status.UPDATED,
                message=SEEN,
                http_status=200,
                after=_shown(claim.fields, image),
                sent=False,
            )
        return unsent._replace(
            status=Status.UNCHANGED, code="ALREADY_SO", message="the image got these values after the plan was made"
        )
    return None


def confirm(verdict: Verdict, claim: Claim, image: Mapping[str, Any]) -> Verdict:
    """An `updated` row whose answer did not carry everything, once the image has been read: still so, or drifted."""
    asked = {name: claim.fields[name] for name in verdict.unconfirmed if name not in TAGS}
    missing, different = _compare(asked, image)
    after = {**(verdict.after or {}), **_shown(asked, image)}
    if "systemTags" in image:  # read because a change of the architecture rewrites them
        after["systemTags"] = redacted(image, "systemTags")
    left = tuple(name for name in verdict.unconfirmed if name in TAGS or name in missing)
    verdict = verdict._replace(unconfirmed=left, after=after)
    return drifted(verdict, different) if different else verdict


def drifted(verdict: Verdict, different: Sequence[str]) -> Verdict:
    """Accepted, but read back with another value in these fields."""
    message = f"the server accepted the change, but the image shows another value in {', '.join(different)}"
    return verdict._replace(status=Status.DRIFTED, code="DRIFTED", message=message, hint=_DRIFT_HINT)


# ---------------------------------------------------------------------------------------------------------------------


def _accepted(http_status: int) -> Verdict:
    """The job was accepted, and its result cannot be had from this answer."""
    code = "JOB_NOT_KNOWN" if http_status == 404 else "NO_RESULT"
    message = f"polling the job returned HTTP {http_status} and no result"
    return Verdict(Next.READ, None, code, message, http_status=http_status, maybe_applied=True, job_used=True)


def _no_answer(answer: Answer) -> Verdict:
    if answer.sent:
        return Verdict(Next.ASK, code=answer.failure, message=answer.detail, maybe_applied=True)
    if answer.failure == "TLS":
        return Verdict(
            Next.HALT,
            code="TLS",
            message=answer.detail,
            hint="check --ca-file and the server's certificate",
            sent=False,
        )
    if answer.failure == TURN_LOST:
        return Verdict(Next.AGAIN, code=TURN_LOST, message=answer.detail, sent=False)
    return Verdict(
        Next.AGAIN,
        code=answer.failure,
        message=answer.detail,
        hint="check that the server is running and --endpoint is right",
    )


def _unbound(answer: Answer) -> Verdict:
    """A complete answer that is not about this row, or not an answer of this API."""
    message = f"the answer (HTTP {answer.status}) does not belong to this image or job"
    return Verdict(Next.ASK, code="NOT_BOUND", message=message, http_status=answer.status, maybe_applied=True)


def _by_inventory(body: Any, claim: Claim, http_status: int) -> Verdict | None:
    inventory = inventory_of(body)
    if inventory is None or inventory.get("uuid") != claim.uuid:
        return None
    missing, different = _compare(claim.fields, inventory)
    after = _shown(claim.fields, inventory)
    if different:
        # Perhaps it is an old answer out of a cache: the image itself is looked at before this is believed.
        message = f"the server accepted the change, but shows another value in {', '.join(different)}"
        verdict = Verdict(Next.READ, Status.DRIFTED, "DRIFTED", message, _DRIFT_HINT, http_status, after=after)
        return verdict._replace(maybe_applied=True, job_used=True, from_server=True)
    verdict = Verdict(Next.SETTLED, Status.UPDATED, http_status=http_status, after=after)
    return verdict._replace(unconfirmed=tuple(missing)) if missing else verdict


def _compare(fields: Fields, inventory: Mapping[str, Any]) -> tuple[list[str], list[str]]:
    """(fields that the inventory does not carry, fields that it shows with another value)."""
    missing, different = [], []
    for name, value in fields.items():
        if name in TAGS or name not in inventory:
            missing.append(name)
        elif as_stored(value) != inventory[name]:
            different.append(name)
    return missing, different


def _shown(fields: Fields, inventory: Mapping[str, Any]) -> Fields:
    """What the answer shows of the fields: evidence for people, so an absurd value is cut, and anything is text but flags."""
    return {name: _evidence(inventory[name]) for name in fields if name in inventory and name not in TAGS}


def _evidence(value: Any) -> str | bool:
    return value if isinstance(value, bool) else str(value)[:MOST_EVIDENCE]


def message_of(verdict: Verdict) -> str:
    """A row's message, with the fields that nothing has shown."""
    if not verdict.unconfirmed:
        return verdict.message
    left = f"not confirmed (missing from the answer): {', '.join(verdict.unconfirmed)}"
    return f"{verdict.message}; {left}" if verdict.message else left


def _by_rule(answer: Answer, body: Any) -> Verdict:
    assert answer.status is not None
    if error := error_of(body):
        return _by_code(error.code, error.text, answer, job_used=False)
    for pattern, code, rule in TEXTS:
        if pattern.search(answer.text):
            return _follow(rule, code, _line(answer.text), answer)
    rule = rule_for_status(answer.status)
    return _follow(rule, f"HTTP_{answer.status}", _in_words(answer), answer)


def _by_code(code: str, text: str, answer: Answer, *, job_used: bool) -> Verdict:
    return _follow(CODES.get(code, OTHER_CODE), code, text, answer, job_used=job_used)._replace(from_server=True)


_MOVES = {
    Move.REFUSED: Next.SETTLED,
    Move.AGAIN: Next.AGAIN,
    Move.HOLD: Next.AGAIN,
    Move.RENEW: Next.RENEW,
    Move.OTHER_KEY: Next.OTHER_KEY,
    Move.ASK: Next.ASK,
    Move.HALT: Next.HALT,
}


def _follow(rule: Rule, code: str, message: str, answer: Answer, *, job_used: bool = False) -> Verdict:
    return Verdict(
        _MOVES[rule.move],
        Status.FAILED if rule.move is Move.REFUSED else None,
        code,
        message,
        rule.hint,
        answer.status,
        maybe_applied=rule.maybe_applied,
        job_used=job_used or rule.move is Move.RENEW or code == "DUPLICATE_JOB",
    )


def _in_words(answer: Answer) -> str:
    """What an answer without an error object says: the title of a page, or the text."""
    if not answer.text.startswith("<"):
        return _line(answer.text) or f"HTTP {answer.status}"
    sender = "from a proxy" if answer.status in _OF_PROXIES else "with a web page"
    title = page_title(answer.text)
    return f'{answer.status} {sender} ("{title}")' if title else f"{answer.status} {sender}"


def _line(text: str) -> str:
    return printable(" ".join(text.split())[:500])
