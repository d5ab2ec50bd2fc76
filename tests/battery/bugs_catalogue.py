"""List the planted bugs: each breaks one promise. `planting.Package` says what `symbol`, `old` and `new` may be."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Bug:
    """One change of one symbol."""

    promise: str
    symbol: str
    old: str
    new: str
    test: str = ""  # where the room's own tests cannot see it: pytest's arguments for the one that should


LEDGER = (
    Bug("claims are committed before they are handed out", "Writer._commit", "results = [op(self._ledger) for op, _ in group.ops]", """
results = [op(self._ledger) for op, _ in group.ops]
for (_, early), result in zip(group.ops, results, strict=True):
    self._loop.call_soon_threadsafe(early.set_result, result)
"""),
    Bug("an outcome is durable before it is shown", "Writer._commit_group", "group, self._group = self._group, _Group()", """
group, self._group = self._group, _Group()
if group.outcomes:
    self._on_settled(group.outcomes)
"""),
    Bug("a slot is free only when its outcome is durable", "Writer.settle", "group.slots.append(durable)", "durable.set_result(None)"),
    Bug("a disk that fails leaves no slot waiting", "Writer._failed", "self._free(group)", "self._ended()"),
    Bug("every commit reaches the disk", "store._PRAGMAS", "synchronous=FULL", "synchronous=OFF"),
    Bug("after a failed write nothing is written", "Writer._written", "if self._failure: ...", "if False: ..."),
    Bug("a failed transaction is the last one", "Ledger.transaction", "if self._failure: ...", "if False: ..."),
    Bug("after a failed group there is no other one", "Ledger.insert_outcomes", "if self._failure: ...", "if False: ..."),
    Bug("nothing is synced again after a failed sync", "Ledger.close", "self._witness and not self._failure", "self._witness"),
    Bug("damage of the ledger is refused", "Ledger.verify", "if found: ...", "if False: ..."),
    Bug("a damaged header is refused", "Ledger.open", "checksums.header_is_whole(ledger.db)", "True"),
    Bug("a group of outcomes has its checksum", "claims.prepare", "digest ^= checksums.digest('outcome', record)", "pass"),
    Bug("the checksum of a group is the log's", "Ledger.insert_outcomes", "self.log_digest = log_digest", "pass"),
    Bug("what is taken back is not in the checksum", "claims.release", "ledger.toggle(..., ..., ..., ...)", "None"),
    Bug("resume sends no row that has its outcome", "claims._NEXT", "AND outcome.ordinal IS NULL", ""),
    Bug("one process holds a run", "rundir._lock", "fcntl.LOCK_EX | fcntl.LOCK_NB", "fcntl.LOCK_SH | fcntl.LOCK_NB"),
    Bug("a run directory that others can write in is not trusted", "rundir._strange", "found.st_mode & (stat.S_IWGRP | stat.S_IWOTH)", "False", "tests/security/test_local_user.py"),
    Bug("files are private", "files._private_descriptor", "0o600", "0o644", "tests/journeys/test_interruptions.py -k private"),
    Bug("one duplicate does not make every outcome read all rows", "intake.index_leaders", "db.execute('CREATE INDEX row_leader ON row (leader) WHERE leader IS NOT NULL')", "None"),
    Bug("results of a fresh run are in manifest order", "LiveResults.append", "self._up_to(ledger, complete)", "dict(lines)"),
    Bug("a result line is written when its row has its outcome", "Writer._complete", "self._claimed[0] - 1 if self._claimed else self._last", "self._last"),
    Bug("rows that wait for one before them are bounded", "LiveResults.append", "len(self._held) > MOST_HELD", "False"),
    Bug("a spreadsheet runs nothing", "schema.result", "'=+-@'", "'+-@'"),
    Bug("a spreadsheet runs nothing of a running run", "lines._safe", "harmless(text)", "text"),
)  # fmt: skip

APPLIER = (
    Bug("a retry is recorded before it is sent", "Loop._next_try", "await self._store.claim_again(row.claim, self._now())", "None"),
    Bug("a job's uuid is used once", "Loop._next_try", "last.job_used", "False"),
    Bug("a row is carried until its outcome is durable", "Loop._carry", "await self._recorded(row, verdict)", "self._recorded(row, verdict)"),
    Bug("what was open at a crash is asked about", "decide.first_step", "claim.interrupted", "False"),
    Bug("what may have been applied is not failed", "decide.give_up", "known.maybe_applied or verdict.maybe_applied", "False"),
    Bug("an unknown row is not guessed", "decide.unknown", "Status.UNKNOWN", "Status.FAILED"),
    Bug("a row nobody can tell about is sent again", "again_if_unknown", "", "return verdict"),
    Bug("every way goes forward: no step follows the tags", "decide._completed", "done is not Step.TAGS and any(kind in known.claim.fields for kind in TAGS)", "any(kind in known.claim.fields for kind in TAGS)"),
    Bug("every way goes forward: a job that cannot say is asked once", "decide._after_ask", "Resolve(Step.READ, ..., known.last_try)", "Resolve(Step.ASK, ..., known.last_try)"),
    Bug("every way goes forward: a job that is lost is polled no more", "decide._after_wait", "Resolve(Step.READ, verdict, known.last_try)", "Resolve(Step.WAIT, verdict, known.last_try)"),
    Bug("a last try is not sent again", "decide._attempted", "known.last_try is not None", "False"),
    Bug("what an answer does not carry is read back", "decide._completed", "done is None and known.can_read and names_to_confirm(known.claim, verdict)", "False"),
    Bug("the straight line believes no other value than the general way", "judge.is_clean", "claim.fields.items() <= inventory.items()", "True"),
    Bug("the straight line believes no other image's answer", "judge.is_clean", "inventory.get('uuid') == claim.uuid", "True"),
    Bug("the straight line believes no other status", "judge.is_clean", "answer.status != 200", "answer.status is None"),
    Bug("a value that the server trims takes the general way", "judge.is_plain", "type(value) is str and value == value.strip(SERVER_TRIMS)", "type(value) is str"),
    Bug("a row that may have been sent takes the general way", "judge.is_plain", "claim.interrupted or claim.doubtful or not claim.text.isascii() or (not claim.text)", "not claim.text.isascii() or not claim.text"),
    Bug("a change of the architecture takes the general way", "judge.is_plain", "claim.before is not None and 'architecture' in claim.fields", "False"),
    Bug("a 503 with an error is a refusal", "judge._judge_update", "if answer.status == 200: ...", """
if answer.status == 200: ...
if answer.status == 503: return Verdict(Next.SETTLED, Status.UPDATED)
"""),
    Bug("an answer is bound to its image", "judge._by_inventory", "inventory is None or inventory.get('uuid') != claim.uuid", "inventory is None"),
    Bug("a 202 is bound to its job", "judge._judge_update", "job_of(body) == claim.job_uuid", "job_of(body)"),
    Bug("a refusal that names another image is not this row's", "judge._judge_update", "names_another(answer.text, claim.uuid)", "False"),
    Bug("a job that is lost is not failed", "judge._accepted", "return ...", "return (...)._replace(next=Next.SETTLED, status=Status.FAILED)"),
    Bug("a value that the image does not show is not taken for applied", "judge.judge_read", "as_stored(claim.fields[name]) != ''", "False"),
    Bug("an old answer out of a cache is not believed", "judge._by_inventory", "Next.READ", "Next.SETTLED"),
    Bug("what was looked at long ago is looked at again", "perform.FRESH", "", "1e9"),
    Bug("an admitted row whose image was compared too long ago is not sent", "Performer._leaves", "row.claim.before is not None and not self._is_fresh(row)", "False"),
    Bug("only what differs now is sent", "Performer.compare", "row.is_plain &= claim is row.claim", "pass"),
    Bug("one PUT finds out how the key is spelled", "Performer.__init__", "api.key_is_known", "True", "tests/journeys/test_spelling.py"),
    Bug("a redirect ends a run at its first PUT", "Performer.judged", "not self._is_the_api and 300 <= (answer.status or 0) < 400", "False", "tests/journeys/test_looking_first.py -k redirect"),
    Bug("concurrency is a hard cap", "Loop._spawn", "len(self._slots) < self._pace.concurrency", "len(self._slots) <= self._pace.concurrency", "tests/journeys/test_library.py"),
    Bug("a stop gives back what waits for its connection", "Performer._leaves", "row.sent_since = self._pace.row_sent()", """
row.begin(self._now(), self._clock())
row.sent_since = self._pace.row_sent()
""", "tests/applier/test_loop.py -k waits_for_its_connection"),
    Bug("a lost turn uses no attempt", "Loop._retry", "verdict.code == TURN_LOST and (not verdict.sent)", "False", "tests/applier/test_loop.py -k connection"),
    Bug("a pause begins no row", "Scheduler.ready", "self._closed or self._pace.is_paused", "self._closed", "tests/journeys/test_control.py -k pauses"),
    Bug("an order is answered when it is durable", "Engine._ordered", "await self._sending.kept()", "None", "tests/journeys/test_control.py -k durable"),
    Bug("a signal starts no new row", "Scheduler.ready", "self._closed or self._pace.is_paused", "self._pace.is_paused", "tests/journeys/test_interruptions.py -k signal"),
    Bug("an outcome keeps no secret", "Loop._recorded", "self._redacted(row, verdict)", "verdict", "tests/journeys/test_bad_servers.py -k echoes"),
    Bug("why a run stops names no secret", "Loop._halt", "self._redacted(row, verdict)", "verdict", "tests/security/test_secrets.py"),
    Bug("tags that are only added lose none", "TagSync._with_present", "[*(tag for tag in before if HIDDEN not in tag), *asked]", "[*asked]", "tests/journeys/test_tags.py -k none_is_lost"),
    Bug("ignored tags are not believed", "TagSync._completed", "if not wrong: ...", "if True: ...", "tests/journeys/test_tags.py -k none_is_lost"),
)  # fmt: skip

PACE = (
    Bug("retries have a budget", "RetryBudget.take", "self._left >= 1", "True"),
    Bug("an outage opens the circuit breaker", "CircuitBreaker._failed", "alone or self._in_a_row >= NEAR", "False"),
    Bug("an open breaker lets one through at a time", "CircuitBreaker.passed", "self._trial is not None", "False"),
    Bug("probes grow apart", "CircuitBreaker._next_round", "self._rounds += 1", "pass"),
    Bug("Retry-After holds the run", "CircuitBreaker._asked_to_wait", "self._open(min(wait, MOST_HOLD), ...)", "None"),
    Bug("a slow answer puts no outage's failures on a row", "CircuitBreaker._acquit", "self._undecided and self._undecided[0] <= epoch", "self._undecided"),
    Bug("no row loses a try to an outage", "RetryCounter.spent", "self._own + self._blamed(FailureCause.ROW)", "self._own + len(self._failure_ids)"),
    Bug("the start after an outage is slow", "Pace._start_slowly", "", "self._reopened = None"),
    Bug("what is left of a quota is not passed", "Pace.record", "health.quota[0] <= self._out", "health.quota[0] < 0"),
    Bug("a request that is not sent is given back", "Pace._passed_in_turn", "self.breaker.record(epoch, SILENT)", "None"),
    Bug("what has its connection when the breaker is open is not sent", "Pace._is_lost", "return ...", "return False", "tests/pace/test_pace.py -k lost_its_turn"),
    Bug("connections that are there all at once do not break the rate", "Pace.begin", "await self.rate.check(...)", "None", "tests/zstack/test_late_connections.py -k rate"),
    Bug("connections that are there all at once do not break a tenth's rate", "RateLimiter.check", "await self._written_in_a_tenth.acquire()", "None", "tests/pace/test_rate.py -k at_once"),
    Bug("late connections keep to a rate that is no whole number", "RateLimiter._apply", "math.ceil(present - 1e-09)", "math.floor(present)", "tests/pace/test_rate.py -k at_once"),
    Bug("a request that has lost its turn holds up no other", "RateLimiter.check", "not is_lost()", "True", "tests/pace/test_pace.py -k hold_up"),
    Bug("who waits for the rate goes at once when there is none", "RateLimiter._apply", "throttler.rate_limit = sys.maxsize", "pass", "tests/pace/test_rate.py -k unlimited"),
    Bug("the rate is a hard cap", "rate.STRETCH", "", "0.5"),
    Bug("two processes share one rate", "SharedSlots.take", "os.pwrite(self._file, _KEPT.pack(slot, spacing), 0)", "None"),
    Bug("errors never speed a run up", "AdaptiveConcurrency.landed", "signal is LoadSignal.WELL", "True"),
)  # fmt: skip

ZSTACK = (
    Bug("a status is the server's own, never an exception's", "HttpClient.send", "_failed(error, sent=sent)", "Answer(400, sent=sent) if isinstance(error, HttpProcessingError) else _failed(error, sent=sent)"),
    Bug("the HTTP client does not send twice", "HttpClient._exchange", "transport.write(request)", "transport.write(request + request)"),
    Bug("an answer nobody asked for does not shift the next", "http._is_usable", "protocol is not None and protocol.is_connected() and not protocol.should_close", "protocol is not None and protocol.is_connected()"),
    Bug("a request that lost its turn sends nothing", "HttpClient.send", "if not await self._begins(connection, begin): ...", "await self._begins(connection, begin)", "tests/zstack/test_late_connections.py -k lost_turn"),
    Bug("a request that is given up before it begins closes its connection", "HttpClient._begins", "connection.close()", "None", "tests/zstack/test_late_connections.py -k given_up"),
    Bug("a connection that breaks while its request waits is not used", "HttpClient._begins", "_is_usable(connection) or not was_usable", "True", "tests/zstack/test_late_connections.py -k ends_or_writes"),
    Bug("a request that was given up before it began is not counted", "Transport.send", "is_begun if answer is None else answer.failure != TURN_LOST", "True", "tests/zstack/test_transport.py -k counted"),
    Bug("an idle connection has no parser", "HttpClient._exchange", "protocol._parser = None", "pass"),
    Bug("a deadline aborts the transport", "HttpClient._expire", "protocol.transport.abort()", "None", "tests/zstack/test_timing.py -k deadline"),
    Bug("a request has a deadline", "HttpClient._exchange", "self._watch(protocol, deadline)", "None", "tests/zstack/test_timing.py -k deadline"),
    Bug("a body that stops being HTTP ends at the deadline", "HttpClient._answer", "asyncio.timeout_at(deadline)", "asyncio.timeout(None)", "tests/zstack/test_timing.py -k deadline"),
    Bug("interim answers are bounded", "HttpClient._answer", "interim > MOST_INTERIM", "False"),
    Bug("answers are bounded", "http.MAX_BODY", "", "2 << 30"),
    Bug("an HTTP date is in GMT", "parse_retry_after", "then.replace(tzinfo=UTC)", "then.replace(tzinfo=UTC) + timedelta(hours=1)"),
    Bug("an authority is read once", "connect._http_client", "read_authority(settings.ca_file)", "read_authority(settings.ca_file) and read_authority(settings.ca_file)", "tests/zstack/test_tls.py -k once"),
    Bug("an access key's clock skew is said in words", "rules.TEXTS", "\"requestTimeTooSkewed|'Date' (format error|must be)\"", "'requestTimeToSkewed'", "tests/applier/test_judge.py"),
    Bug("a dead session costs one login", "_AccountSession.renew", "if dead != self.ticket: ...", "if False: ...", "tests/journeys/test_faults.py -k one_login"),
    Bug("a refused login is not tried for ever", "_AccountSession.renew", "if self._refused: ...", "if False: ...", "tests/journeys/test_bad_servers.py -k login"),
    Bug("secrets that are echoed are not written down", "Redactor._replaced", "self._secrets", "()", "tests/journeys/test_bad_servers.py -k echoes"),
    Bug("what happens to be a password is judged as it was said", "Transport.send", "await self._client.send(request, ...)", "self.redactor.answer(await self._client.send(request, begin))", "tests/journeys/test_bad_servers.py -k password"),
)  # fmt: skip

PLANNER = (
    Bug("nobody's later edit is overwritten", "changed_since", "before.items()", "()"),
    Bug("only what differs is sent", "left_to_send", "not is_shown(image, name) or not fulfilled(name, value, now[name], replace_tags=replace_tags)", "True"),
    Bug("a precondition holds or nothing is sent", "diff.plan", "if broken: ...", "if False: ..."),
    Bug("a credential in an image is not written down", "diff.redacted", "getattr(image, 'redacted', image)", "image", "tests/security/test_survey.py"),
    Bug("an undo takes back only what is still ours", "undo_row", "expects[name] = ...", "pass"),
    Bug("a boot mode goes back with its architecture", "undo._boot_mode", "sorted(left) != sorted(before)", "False"),
    Bug("what cannot be put back is said", "undo._irretrievable", "'had no value before, and the API cannot remove a value'", "''"),
    Bug("undo removes no tag that was never read", "undo_row", "name in TAGS and name not in written.before", "False", "tests/journeys/test_looking_first.py -k tags"),
    Bug("an image is missing only when it is left out twice", "Reader.images", "while missing: ...", "while False: ..."),
    Bug("an answer about other images is none", "Reader._certain", "any(image.get('uuid') not in part for image in images)", "False"),
    Bug("what nobody waits for any more is not asked", "Reader._ask_gathered", "not asked[1].done()", "True"),
    Bug("a null in a named field costs no survey", "Reader._query", "_failed_inside(answer)", "False", "tests/journeys/test_looking_first.py -k null"),
    Bug("tags that cannot be read cost only what depends on them", "Reader._add_tags", "CannotRead", "ZeroDivisionError", "tests/journeys/test_looking_first.py -k tags"),
    Bug("a plan of too many changes is refused", "guard.refusal", "max_changes.count is not None and changes > max_changes.count", "False"),
    Bug("a side effect needs a word", "guard.refusal", "counts.fields.get(name) and name not in allowed", "False"),
)  # fmt: skip

ENGINE = (
    Bug("nothing is sent without looking", "Planning._make", "return Ending(Exit.TARGET, ...)", "pass", "tests/journeys/test_looking_first.py"),
    Bug("only the plan that was looked at is applied", "Planning.plan", "self._checksum is not None and not counts.digest.startswith(self._checksum.lower())", "False", "tests/journeys/test_campaign.py -k looked_at"),
    Bug("a plan's files are made only where somebody looks", "Planning.plan", "if self._plan_only or self._approve: ...", "if True: ...", "tests/cli/test_commands.py"),
    Bug("the canary stops the run", "Sending._canary", "if bad: ...", "if False: ...", "tests/journeys/test_campaign.py -k canary"),
    Bug("outside its hours nothing is changed", "Steering._mind", "window.is_open(wall.hour * 60 + wall.minute)", "True", "tests/journeys/test_control.py -k hours"),
    Bug("a time box ends the run", "Steering.time_box", "asyncio.get_running_loop().call_later(seconds, self._stop, Exit.TIME_BOX, why)", "asyncio.get_running_loop().call_later(seconds, print)", "tests/journeys/test_control.py -k time_box"),
    Bug("undo last does not redo a campaign", "last_to_undo", "run.state in _BEGUN and not run.undo_of", "run.state in _BEGUN", "tests/cli/test_history.py -k undo"),
    Bug("a run is undone once", "engine.undone.already_undone", "run.undo_of != directory.run_id or run.is_partial or run.state not in _BEGUN", "True", "tests/cli/test_history.py -k undo"),
    Bug("a finished run's name is taken", "named_run", "state == 'done'", "False", "tests/cli/test_history.py -k named"),
    Bug("two runs of one work are not under way at once", "overlap._does", "work.is_like(work_of(ledger))", "False", "tests/cli/test_history.py -k living"),
    Bug("a guard sells no way around", "close.next_command", "state == 'refused' or (stop is not None and not stop.resumable)", "state == 'refused'", "tests/cli/test_history.py -k canary_that"),
)  # fmt: skip

MANIFEST = (
    Bug("blanks before an opening quote are no part of a value", "_OpeningQuotes.moved", "not inside and (found := self._blanks.match(text, at))", "False"),
    Bug("a cell that looks empty changes nothing", "cells.read_cell", "is_blank(text)", "not text.strip(SERVER_TRIMS)", "tests/manifest/test_edges.py"),
    Bug("a byte order mark wins over the encoding", "encoding.choose", "start.startswith(mark)", "False"),
    Bug("UTF-8 is not read in a configured encoding", "encoding.choose", "configured and _is_ascii_superset(asked)", "False"),
    Bug("our own files are UTF-8", "has_our_columns", "names & OUR_COLUMNS", "False"),
    Bug("--strict refuses what is hardly ever meant", "RowCheck.row", "self._is_strict", "False"),
    Bug("a value is checked for each column it stands in", "SoundLines.__init__", "[_Memo(_field(target, checker) if target in FIELDS else _nothing) for target in others]", "[_Memo(_field(others[0], checker) if others[0] in FIELDS else _nothing)] * len(others)"),
    Bug("a value is checked once per column", "sound._Memo.__missing__", "len(self) < REMEMBERED", "False"),
    Bug("so many values of a column are remembered and no more", "sound._Memo.__missing__", "len(self) < REMEMBERED", "True"),
    Bug("a sound line is one of printable characters", "sound._Memo.__missing__", "len(cell) > LONGEST or not cell.isprintable()", "len(cell) > LONGEST"),
)  # fmt: skip

COMMAND_LINE = (
    Bug("a terminal obeys nothing", "screen.clean", "", "return text", "tests/cli/test_screen.py"),
    Bug("a page runs nothing that an image is called", "plan_page._harmless", r"text.replace('<', '\\u003c')", "text", "tests/report/test_plan_page.py"),
    Bug("the question reaches the terminal", "screen.can_ask", "sys.stdin.isatty()", "sys.stdin.isatty() and sys.stderr.isatty()", "tests/cli/test_streams.py"),
    Bug("an ignored hangup stays ignored", "execute.with_signals", "number is signal.SIGHUP and signal.getsignal(number) is signal.SIG_IGN", "False", "tests/cli/test_streams.py -k hangup"),
    Bug("a reader that goes away changes no exit code", "screen._Output.flush", "BrokenPipeError", "ZeroDivisionError", "tests/cli/test_streams.py -k reader"),
    Bug("JSON messages are JSON in every line", "screen.set_up", "log_format.strip() == 'json'", "False", "tests/cli/test_streams.py -k json"),
    Bug("--json is always a document", "screen.finish", "_state.wants_document and (not _state.has_document) and (exit_code or _state.last_error)", "False", "tests/cli/test_streams.py -k document"),
    Bug("what can be resumed is not pruned", "keeping.removable", "run.directory.run_id in chosen and run.state in FINISHED", "run.directory.run_id in chosen", "tests/schedule/test_keep.py -k resumed"),
    Bug("a secret that everybody can read is refused", "credentials.too_open", "found.st_mode & stat.S_IRWXO", "False", "tests/cli/test_secrets_and_settings.py"),
    Bug("a password does not cross a network in the clear where that is forbidden", "layers.merge", "settings.require_tls and settings.is_readable_on_the_way", "False", "tests/security/test_network.py"),
)  # fmt: skip

LOOKING = (
    Bug("seconds that become minutes lose nothing", "timeline._sum", "total.update(one)", "total.__ior__(Counter(one))", "tests/ledger/test_timeline.py"),
    Bug("old seconds become minutes", "timeline._merge_old", "kept <= KEPT", "True", "tests/ledger/test_timeline.py"),
    Bug("what happened is in the checksum", "timeline.add", "ledger.toggle('event', *event)", "None", "tests/ledger/test_timeline.py"),
    Bug("a second ends before the next one is counted", "Meter.add", "clock >= self.due", "False", "tests/test_meter.py"),
    Bug("latency is that of answered PUTs", "Meter.add", "kind == 'put' and (not failure_id)", "True", "tests/test_meter.py"),
    Bug("the report agrees with the server", "Recorder._cut", "requests - self._requests", "Counter(requests)", "tests/journeys/test_reports.py -k agrees"),
    Bug("a process that was lost is remembered", "reopen._reopened", "state == 'running'", "False", "tests/journeys/test_reports.py -k died"),
    Bug("a page shows names as text", "escaping.harmless", "escape(clean(str(value)))", "Markup(value)", "tests/report/test_run_page.py -k run"),
    Bug("a page writes out what it would obey", "escaping.harmless", "clean(str(value))", "str(value)", "tests/report/test_plan_page.py -k called"),
    Bug("a report stays small", "run_page._changes", "room < 0", "False", "tests/report/test_run_page.py -k 300"),
    Bug("an outage is not cut out of the axis", "timeline.GAP", "120.0", "30.0", "tests/report/test_timeline.py -k outage"),
    Bug("a report of a run that reads says so", "report.readable", "ledger.meta('state', 'reading') == 'reading'", "False", "tests/journeys/test_reports.py -k reads"),
)  # fmt: skip

NOTIFY = (
    Bug("a webhook is signed over id, time and body", "webhook.signature", "f'{message_id}.{timestamp}.'.encode() + body", "body", "tests/notify/test_webhook.py"),
    Bug("hooks get no credentials", "children.environment", "not name.startswith('BULKIMG_') and name not in left_out", "name not in left_out", "tests/notify"),
    Bug("a hook that fails before the run refuses it", "Attending.before", "if not failed: ...", "if True: return None", "tests/notify"),
    Bug("a hook has no longer than its time", "children._end_of", "", "return await process.wait()", "tests/notify"),
    Bug("a message holds no value of a row", "attendants.Attendants._message", "rows(rule.rows) if rule.rows else ()", "rows(5)", "tests/notify"),
)  # fmt: skip

LIVE = (
    Bug("the page is of this machine only", "web._listener", "('127.0.0.1', port)", "('', port)", "tests/live/test_doors.py -k listens"),
    Bug("a foreign host is refused", "Doors._check_host", "len(hosts) != 1 or hosts[0] not in known or not request.raw_path.startswith('/')", "False", "tests/live/test_doors.py -k host"),
    Bug("a host of another port is foreign", "Doors._check_host", "[f'{name}:{self.port}' for name in ('127.0.0.1', 'localhost', '[::1]')]", "[*hosts[:1]] if hosts and hosts[0].startswith('127.0.0.1') else [f'localhost:{self.port}', f'[::1]:{self.port}']", "tests/live/test_doors.py -k foreign_host"),
    Bug("the page only shows", "Doors.check", "request.method not in ('GET', 'HEAD')", "False", "tests/live/test_doors.py -k get_and_head"),
    Bug("without the cookie nothing is shown", "Doors.check", "not _equal(request.cookies.get(self.cookie_name, ''), self.cookie)", "False", "tests/live/test_doors.py -k without_the_cookie"),
    Bug("a wrong token gets no cookie", "Doors._has_token", "_equal(request.query.get('token', ''), self.token)", "bool(request.query.get('token'))", "tests/live/test_doors.py -k wrong_token"),
    Bug("a token opens only the first page", "Doors._has_token", "request.path == '/'", "True", "tests/live/test_doors.py -k first_page"),
    Bug("secrets are compared in a time that tells nothing", "doors._equal", "", "return given == wanted", "tests/live/test_doors.py -k tells_nothing"),
    Bug("a page of another site gets nothing", "doors._OURS", "", "('same-origin', 'none', 'cross-site')", "tests/live/test_doors.py -k another_site"),
    Bug("a page of another port gets nothing", "doors._OURS", "", "('same-origin', 'none', 'same-site')", "tests/live/test_doors.py -k another_site"),
    Bug("a script of another page is not sent to our own", "Doors._check_origin", "(request.headers.get('Sec-Fetch-Mode'), request.headers.get('Sec-Fetch-Dest')) == ('navigate', 'document')", "True", "tests/live/test_doors.py -k another_site"),
    Bug("pages of two ports have two cookies", "Doors.cookie_name", "f'bulkimg-{self.port}'", "'bulkimg'", "tests/live/test_doors.py -k does_not_open_another"),
    Bug("no script reads the cookie", "Doors.set_cookie", "f'{self.cookie_name}={self.cookie}; Path=/; HttpOnly; SameSite=Strict'", "f'{self.cookie_name}={self.cookie}; Path=/; SameSite=Strict'", "tests/live/test_doors.py -k exchanged"),
    Bug("the cookie is sent by our own pages only", "Doors.set_cookie", "f'{self.cookie_name}={self.cookie}; Path=/; HttpOnly; SameSite=Strict'", "f'{self.cookie_name}={self.cookie}; Path=/; HttpOnly'", "tests/live/test_doors.py -k exchanged"),
    Bug("no page frames it", "web._html", "f\"{policy}; frame-ancestors 'none'\"", "policy", "tests/live/test_doors.py -k policy"),
    Bug("nothing of the page is kept", "doors.HEADERS", "'no-store'", "'private'", "tests/live/test_doors.py -k policy"),
    Bug("the policy lets only our own script run", "render.policy", "f\"script-src '{_digest(text(script))}'; \"", "\"script-src 'unsafe-inline'; \"", "tests/live/test_doors.py -k policy"),
    Bug("a path is a run of the runs directory", "web._RUN", "", "re.compile(r'/run/(.+?)(/stream)?')", "tests/live/test_doors.py -k no_page"),
    Bug("where the token leads is our own page", "Site._welcome", "_RUN.fullmatch(f'/run/{run}')", "run", "tests/live/test_doors.py -k exchanged"),
    Bug("eight streams and no more", "streams.MOST_STREAMS", "", "99", "tests/live/test_doors.py -k eight"),
    Bug("a stream that is left makes room", "web.serve", "Server(site.answer, _headers(), access_log=None, logger=_log, handler_cancellation=True)", "Server(site.answer, _headers(), access_log=None, logger=_log)", "tests/live/test_doors.py -k eight"),
    Bug("the file that opens the browser is of this user only", "private._write", "0o600", "0o644", "tests/live/test_doors.py -k argument"),
    Bug("names are text on every page", "render._environment", "Environment(autoescape=True, loader=..., undefined=..., finalize=..., trim_blocks=True, keep_trailing_newline=True)", "Environment(autoescape=False, loader=PackageLoader('bulkimg.report'), undefined=StrictUndefined, trim_blocks=True)", "tests/live/test_doors.py -k names_are_text"),
    Bug("eight pages are drawn for once", "Channel.now", "self._clock() - self._drawn_at >= EVERY", "True", "tests/live/test_drawing.py -k eight"),
    Bug("what has not changed is not drawn", "Drawing.draw", "seen == self._signs and (not is_due)", "False", "tests/live/test_drawing.py -k not_drawn_again"),
    Bug("rows of a living run are read now and then", "drawing.Drawing._of", "max(ROWS_EVERY, ROWS_SHARE * (self._clock() - begun))", "0.0", "tests/live/test_drawing.py -k now_and_then"),
    Bug("those who look are not taken for the run", "RunDirectory.is_held", "fcntl.LOCK_SH | fcntl.LOCK_NB", "fcntl.LOCK_EX | fcntl.LOCK_NB", "tests/live/test_drawing.py -k each_other"),
    Bug("a damaged run is a sentence", "drawing._DAMAGE", "", "()", "tests/live/test_drawing.py -k sentence"),
    Bug("a watched terminal obeys nothing", "terminal.one_line", "", "return str(text)", "tests/live/test_watch.py -k obeyed"),
    Bug("Ctrl-C ends the watching with 130", "watch.command", "typer.Exit(Exit.INTERRUPTED)", "typer.Exit(Exit.OK)", "tests/live/test_watch.py -k ctrl_c"),
)  # fmt: skip

CAMPAIGN = (
    Bug("a row goes to its own target only", "campaign.create._homes", "places.get(row.target, ()) if row.target else (0,)", "everywhere", "tests/campaign"),
    Bug("a row without a target is not lost", "campaign.create._homes", "places.get(row.target, ()) if row.target else (0,)", "places.get(row.target, ())", "tests/campaign"),
    Bug("a row for an unknown target is a problem", "Columns.target_of", "name in self._target_names", "True", "tests/campaign"),
    Bug("two targets are two servers", "engine.together.check_together", "(other := by_target.setdefault(server_of(settings), name)) != name", "False", "tests/campaign"),
    Bug("a dead target stops no other", "campaign.execute.Execution._one", "self._stop_on_failure and self._ended[name].exit_code and (not self._sides.is_stopping)", "self._ended[name].exit_code", "tests/campaign"),
    Bug("one question before anything is sent anywhere", "Together.approve", "", "return True", "tests/campaign"),
    Bug("the exit code is the worst", "totals.worst", "code in found", "True", "tests/campaign"),
    Bug("a bad manifest refuses all targets", "close.refusal", "fatal or (found and (not first.settings.skip_invalid))", "False", "tests/campaign"),
    Bug("--stop-on-failure stops the others", "campaign.execute.Execution._one", "self._stop_on_failure and self._ended[name].exit_code and (not self._sides.is_stopping)", "False", "tests/campaign"),
    Bug("what is typed ahead answers no later question", "screen.forget_typed", "", "pass", "tests/campaign -k typed_ahead"),
    Bug("a finished campaign is not run again under its name", "cli.campaign.opening.named", "'done'", "''", "tests/campaign"),
    Bug("a named campaign does only its own work again", "cli.campaign.opening.named", "(known.kind, known.facts.get('of')) != (kind, of)", "False", "tests/campaign"),
    Bug("no two campaigns wait for each other", "engine.together.lock_order", "sorted(targets, key=lambda name: (server_of(targets[name]), name))", "list(targets)", "tests/campaign"),
    Bug("one process makes and executes a campaign", "campaign.directory.hold", "RunDirectory(path).hold('campaign')", "RunDirectory(path)", "tests/campaign"),
    Bug("a credential command runs once", "credentials.running_once", "words not in printed", "True", "tests/campaign"),
    Bug("the question names servers and accounts", "cli.campaign.questions.questions_of", "target_with_account(opened.runs[name])", "''", "tests/campaign"),
)  # fmt: skip

TABLES = (
    Bug("no text of a workbook is XML", "xlsx._shown", "if not _UNUSUAL.search(text): ...", "if not _UNUSUAL.search(text) or (text.startswith('<r>') and text.endswith('</r>')): ...", "tests/report/test_workbook.py -k formula"),
    Bug("an escape in a text of a workbook stays a text", "xlsx._UNUSUAL", "", r"re.compile(r'[\x00-\x08\x0b-\x1f<>&]|\A[ \t\n]|[ \t\n]\Z')", "tests/report/test_workbook.py -k formula"),
    Bug("a cell that was cut is refused when the sheet is run", "workbook._exact", "cell + REFUSED_CELL", "cell", "tests/report/test_workbook.py -k refused_again"),
    Bug("cells that cannot be assigned are in no column", "_Table._cells", "[joined, *[''] * (len(self._own) - 1)]", "(cells + [''] * len(self._own))[:len(self._own)]", "tests/report/test_workbook.py -k refused_again"),
    Bug("a refused row of JSONL stays refused in a sheet", "_Table._fields", "row.status == Status.INVALID", "False", "tests/report/test_workbook.py -k jsonl"),
    Bug("an earlier run's columns are replaced in a sheet", "_Table.__init__", "name not in (*OURS, REFUSED_MANIFEST)", "True", "tests/report/test_workbook.py -k earlier"),
    Bug("a manifest that was refused as a whole stays refused", "stats.problem_of_the_whole", "problem.fatal", "False", "tests/report/test_workbook.py -k refused_as_a_whole"),
    Bug("a number typed into a sheet stays a text", "xlsx._TEXT", "", "0", "tests/report/test_workbook.py -k coloured"),
    Bug("what no sheet holds is refused before anything is sent", "create.check_results_size", "if path := settings.results: ...", "if False: ...", "tests/report/test_workbook.py -k no_sheet_holds"),
    Bug("an old table is not taken for the run's", "Engine._carry_out", "write_table(run, rows=False)", "None", "tests/journeys/test_result_tables.py -k gone"),
    Bug("Ctrl-C ends the writing of a table", "Engine._table_written", "broken.set()", "None", "tests/journeys/test_result_tables.py -k ctrl_c"),
    Bug("a run whose table is missing has no summary of success", "Engine._close", "self._run.table and (not await self._table_written())", "False", "tests/journeys/test_result_tables.py -k gone"),
    Bug("DuckDB reads and writes in its place only", "parquet._connected", "connection.execute('SET enable_external_access = false')", "None", "tests/report/test_parquet.py -k place"),
    Bug("times in Parquet are UTC", "parquet.COLUMNS", "'TIMESTAMPTZ'", "'TIMESTAMP'", "tests/report/test_parquet.py"),)  # fmt: skip

PLUGINS = (
    Bug("only a plugin that is named is imported", "loading.load", "tuple((_loaded(name, installed, hide) for name in names))", "tuple([_loaded(name, installed, hide) for name in installed])[:len(names)]"),
    Bug("two packages with one plugin's name are refused", "loading._entry", "len(found) > 1", "False"),
    Bug("a plugin that calls sys.exit ends no run", "loading.Plugin.call", "BaseException", "Exception"),
    Bug("what a plugin says shows no credential", "plugins.environment_redactor", "redactor.add_secret(...)", "None", "tests/plugins/test_rows.py -k credential"),
    Bug("a plugin cannot lead a change to another image", "plugins.rows._KEPT", "", "('line', 'expects', 'cells')"),
    Bug("a plugin's value passes the checks", "RowCheck._after_plugins", "self._checker.fields(line, found.fields, cells=False)", "(dict(found.fields), [])", "tests/plugins/test_rows.py"),
    Bug("a value that was refused stays refused until it is corrected", "RowCheck._after_plugins", "problem.column not in found.fields", "False", "tests/plugins/test_rows.py"),
    Bug("every row passes a row hook", "Manifest._sound_lines", "self._slice.counts_rows or self._columns.look_at_texts or self._alter", "self._slice.counts_rows or self._columns.look_at_texts", "tests/plugins/test_rows.py -k quickly"),
    Bug("what waits for an event hook is bounded", "EventThread.put", "self._waiting and self._size + size > self._most and (not isinstance(event, Summary))", "False", "tests/plugins/test_events.py"),
    Bug("a failing event hook is not called again", "EventThread.put", "self.failure or self._is_closed", "self._is_closed", "tests/plugins/test_events.py -k fails"),
    Bug("a plan is not observed", "Plugging.__init__", "[] if plan_only else _threads(plugins)", "_threads(plugins)", "tests/plugins/test_events.py -k plan"),
)  # fmt: skip

SOURCES = (
    Bug("SQLite lets a query only read", "database._begin", "opened.driver.set_authorizer(_authorize)", "None", "tests/manifest/test_sql.py -k only_read"),
    Bug("a database of SQLite is opened for reading", "database._open_sqlite", "f'file:{quote(str(path))}?mode=ro'", "f'file:{quote(str(path))}'", "tests/manifest/test_sql.py -k opened_for_reading"),
    Bug("PostgreSQL lets a query only read", "database._begin", "connection.execution_options(postgresql_readonly=True)", "None", "tests/manifest/test_sql.py -k itself"),
    Bug("one file holds one statement", "statement.check", "end < len(text)", "False", "tests/manifest/test_source.py -k not_one"),
    Bug("a quote hides a semicolon and nothing else", "statement._after_quoted", "dialect == 'mysql' and quote in '\\'\"'", "quote in '\\'\"'", "tests/manifest/test_source.py"),
    Bug("what a query says with % and : is text", "SqlTable._begin", "{'stream_results': True, 'yield_per': BATCH, 'no_parameters': True}", "{'stream_results': True, 'yield_per': BATCH}", "tests/manifest/test_sql.py -k percent"),
    Bug("no message shows the URL of a database", "Address.reason", "not line or any((secret in words for secret in self.secrets))", "not line", "tests/manifest/test_source.py -k secret"),
    Bug("a parameter of a URL does not make a database writable", "database.parse_address", "not set(url.query) <= set(_PARAMETERS[dialect])", "False", "tests/manifest/test_source.py -k another_url"),
    Bug("an empty text is not NULL", "TypedColumns._text", "self._targets[at] not in {'', 'uuid'} and is_blank(found)", "False", "tests/manifest -k blank_texts"),
    Bug("no rows are no plan", "Manifest._read", "self._query and self._query.allow_empty", "self._query", "tests/manifest/test_sql.py -k no_rows"),
    Bug("a query that is changed is another run", "reopen.edited_manifest", "ledger.meta('query_sha256') or ledger.meta('sha256')", "ledger.meta('sha256')", "tests/journeys/test_sources.py -k query"),
    Bug("a name of Parquet is one file", "ParquetTable._path", "", "return self._name", "tests/manifest/test_parquet.py -k pattern"),
    Bug("a file that is changed while it is read is refused", "ParquetTable._digest", "(now.st_size, now.st_mtime_ns) != (self._seen.st_size, self._seen.st_mtime_ns)", "False", "tests/manifest/test_parquet.py -k again"),
)  # fmt: skip

SCHEDULE = (
    Bug("two that start at once never both run", "overlap.entering", "fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)", "None", "tests/schedule/test_lock.py -k enter_at_once"),
    Bug("same content in two files runs once", "overlap.admit", "find_other(runs_dir, work_of(ledger), directory.path.name, admitted_only=True)", "None", "tests/schedule/test_lock.py -k same_content"),
    Bug("the last success of a job is kept", "keeping.removable", "successes.setdefault(run.job, run.directory.run_id)", "None", "tests/schedule/test_keep.py -k last_success_stays"),
    Bug("what is left of a removal is no run", "rundir.list_runs", "entry.is_dir() and not entry.name.startswith(REMAINS)", "entry.is_dir()", "tests/schedule/test_keep.py -k left_of_a_removal"),
    Bug("a percent sign is no line break for cron", "crontab._command", "re.sub('%', '\\\\%', command)", "command", "tests/schedule/test_cron.py -k percent"),
    Bug("a unit writes nowhere but in its own places", "systemd._HARDENING", "ProtectSystem=strict", "ProtectSystem=no", "tests/schedule/test_systemd.py -k night_needs"),
    Bug("cron's either day is not systemd's both", "calendar.as_systemd", "when.either_day", "False", "tests/schedule/test_calendar.py -k not_exact"),
    Bug("a job that cannot log in is refused", "checks._of_credentials", "not kinds", "False", "tests/schedule/test_command.py -k nobody_has"),
    Bug("a server that fails at fields costs one question", "Reader.__init__", "self._has_named_fields = False", "self._has_named_fields = True", "tests/schedule/test_reconcile.py -k without_a_change"),
)  # fmt: skip

FLEET = (
    Bug("every uuid is in exactly one shard", "Shard.holds", "self.index - 1", "self.index", "tests/fleet/test_shard.py -k uuid"),
    Bug("every process of an array is a shard of its own", "shard.array_shard", "_number(environ, engine.task) - first + 1", "max(1, _number(environ, engine.task) - first)", "tests/fleet/test_shard.py -k array"),
    Bug("two array engines are not guessed between", "shard.array_shard", "if len(found) > 1: ...", "if False: ...", "tests/fleet/test_shard.py -k cannot_mean"),
    Bug("the rates of all shards are the rate", "Settings.own_rate", "self.rate / self.shard.count if self.shard else self.rate", "self.rate", "tests/fleet/test_shard.py -k rates"),
    Bug("the pace of a shard is its part", "connect.pace_of", "settings.own_rate", "settings.rate", "tests/fleet/test_array.py -k at_once"),
    Bug("the parts of a limit sum up to it", "Shard.part", "self.index <= limit.count % self.count", "1", "tests/fleet/test_shard.py -k limit"),
    Bug("a shard sends no more than its part of --max-changes", "Planning.plan", "refusal(counts, settings.own_max_changes, settings.allow_field)", "refusal(counts, settings.max_changes, settings.allow_field)", "tests/fleet/test_rows.py -k guards"),
    Bug("all rows of one image stay in its shard", "intake.keep_shard", "db.execute('DELETE FROM row WHERE NOT is_ours(uuid)')", "db.execute('DELETE FROM row WHERE NOT is_ours(uuid) OR leader IS NOT NULL')", "tests/fleet/test_rows.py -k one_put"),
    Bug("a manifest that one shard refuses is refused by all", "_Loading._may_be_sent", "", "return True", "tests/fleet/test_rows.py -k refuses"),
    Bug("a shard is resumed as the shard that it is", "CommandContext.__init__", "layer if layer.options is stored else _whole(layer)", "layer", "tests/fleet/test_rows.py -k resumed_as"),
    Bug("a retry of a shard has the whole rate", "cli.retry.command", "('results', 'shard')", "('results',)", "tests/fleet/test_rows.py -k whole_rate"),
    Bug("a shard and the whole do not run at once", "Work._is_beside", "", "return self.shard != other.shard", "tests/fleet/test_rows.py -k the_whole_do"),
    Bug("a missing shard is refused", "merge.check_complete", "if missing: ...", "if False: ...", "tests/fleet/test_merge.py -k missing"),
    Bug("a shard that is not finished is refused", "merge.check_complete", "part.ledger.meta('state') != 'done'", "False", "tests/fleet/test_merge.py -k killed"),
    Bug("nothing is merged in part unless it is asked for", "merge.create_merged", "if not partial: ...", "if False: ...", "tests/fleet/test_merge.py -k missing"),
    Bug("a shard of another manifest is refused", "merge.check_alike", "part.ledger.meta(key) != first.ledger.meta(key)", "False", "tests/fleet/test_merge.py -k another"),
    Bug("a shard of other rows of a program is refused", "intake.rows_digest", "", "return ''", "tests/library/test_merge.py -k one_division"),
    Bug("a shard with other options is refused", "merge._differing", "", "return ''", "tests/fleet/test_merge.py -k other_rows"),
    Bug("a damaged shard is refused", "merge.opened", "ledger.verify()", "None", "tests/fleet/test_merge.py -k damaged"),
    Bug("a full disk leaves nothing half merged", "merge._written", "run.directory.remove()", "None", "tests/fleet/test_merge.py -k full_disk"),
    Bug("a row of a merged run is shown once", "past.past_of", "not _is_told_again(one, shards_of, told)", "True", "tests/fleet/test_merge.py -k all_commands"),
)  # fmt: skip

CLUSTER = (
    Bug("a share rests for a second before another worker has it", "shares.REST", "", "0.0", "tests/cluster/test_shares.py"),
    Bug("the shares of all workers sum up to the rate", "Shares.grant", "min(wanted, free)", "wanted", "tests/cluster/test_shares.py"),
    Bug("nothing begins after the end of a lease", "Permit.is_valid", "self._rate > 0 and self._clock() < self.ends", "self._rate > 0", "tests/cluster/test_leased.py -k lease"),
    Bug("a slow worker is waited for when others are refused", "Hall._are_all_refused", "not self.expected", "True", "tests/cluster/test_hiring.py -k slow_worker"),
    Bug("a scheduler that is started again is found", "Hiring._workers", "self._client.status == 'closed' and self._reach", "False", "tests/cluster/test_hiring.py -k started_again"),
    Bug("what has its connection after the end of a lease is not sent", "LeasedPace._is_lost", "not self._permit.is_valid", "False", "tests/cluster/test_leased.py -k connection"),
    Bug("what is admitted after the end of a lease is not sent", "LeasedPace.admit", "self._permit.is_valid", "True", "tests/cluster/test_leased.py -k turn"),
    Bug("a lease counts from before it was asked for", "Worker._keep_renewing", "self._permit.take(lease, asked_at)", "self._permit.take(lease, self._boottime())", "tests/cluster/test_leased.py -k asked"),
    Bug("what a lost worker held is asked about first", "desk._interrupted", "row._replace(interrupted=True, doubtful=True)", "row", "tests/cluster/test_office.py -k asked_about"),
    Bug("no row of a lost worker is forgotten", "Desk.take_back", "self._doubtful.append(_interrupted(row))", "None", "tests/cluster/test_desk.py -k killed"),
    Bug("a message is obeyed once", "Hall.handle", "message['number'] > number", "True", "tests/cluster/test_office.py -k twice"),
    Bug("a joining that arrives twice is one", "Hall._join", "not token or token not in self._joined", "True", "tests/cluster/test_office.py -k join"),
    Bug("a message that comes late is not obeyed", "Hall.handle", "message['number'] < number", "False", "tests/cluster/test_office.py -k twice"),
    Bug("trouble closes the gate for all workers", "Gate.may_send", "not self._breaker.is_open", "True", "tests/cluster/test_office.py -k trial"),
    Bug("a worker with nothing to try passes the trial on to another", "Gate._is_next", "", "return True", "tests/cluster/test_office.py -k trial"),
    Bug("the longest wait that any worker was asked for is kept", "Gate.trouble", "seconds is not None", "seconds is not None and not self._breaker.is_open", "tests/cluster/test_office.py -k longest"),
    Bug("a trial that fails is told to the desk", "LeasedBreaker._failed", "self.trouble = (why, None)", "None", "tests/cluster/test_leased.py -k trial"),
    Bug("retries of all workers are one budget's", "Hall._retries", "budget.take(nothing_else=message['nothing_else'])", "True", "tests/cluster/test_office.py -k budget"),
    Bug("the desk stops at so many errors", "Desk._settled", "self.stop(Exit.ERROR_LIMIT, too_many)", "None", "tests/cluster/test_desk.py -k too_many"),
    Bug("a worker is told of an outcome when it is durable", "Desk._settled", "await self._store.settle(outcome, as_sent=as_sent)", "self._store.settle(outcome, as_sent=as_sent)", "tests/cluster/test_office.py -k durable"),
    Bug("a row whose outcome is being written is handed out to nobody", "Desk._settled", """
del member.held[outcome.ordinal]
member.given_back.discard(outcome.ordinal)
self._settling.add(outcome.ordinal)
await self._store.settle(outcome, as_sent=as_sent)
self._settling.discard(outcome.ordinal)
""", """
await self._store.settle(outcome, as_sent=as_sent)
member.held.pop(outcome.ordinal, None)
member.given_back.discard(outcome.ordinal)
""", "tests/cluster/test_office.py -k being_written"),
    Bug("a row that is being given back has no attempt any more", "Desk._released", """
member.given_back.update(...)
await self._store.release(rows)
""", """
await self._store.release(rows)
member.given_back.update(row.ordinal for row in rows)
""", "tests/cluster/test_office.py -k given_back"),
    Bug("concurrency is a cap of all workers", "Crew.part_of", "min(self.most // len(here), self.most - used)", "self.most // len(here)", "tests/cluster/test_office.py -k concurrency"),
    Bug("a desk that was stopped reads first what workers have sent", "Hall.find_lost", "LONG_LOST if held_up else GRACE", "GRACE", "tests/cluster/test_office.py -k held_up"),
    Bug("workers with rows take turns where the rate is too low for all", "Hall._part", "turns(those, now)", "those", "tests/cluster/test_office.py -k turn_where"),
    Bug("a worker with rows begins nothing once the run is over", "Hall._renew", "self.is_over and member.held", "False", "tests/cluster/test_office.py -k begins_nothing"),
    Bug("a worker without rows leaves its share to the others", "Hall._part", "self._has_more or self.is_over", "True", "tests/cluster/test_office.py -k leaves_its_share"),
    Bug("a desk that is held up all the time loses workers too", "hall.LONG_LOST", "", "1e9", "tests/cluster/test_office.py -k held_up"),
    Bug("what comes after the last row drives no worker away", "Hall._write", "member.held", "True", "tests/cluster/test_office.py -k drives_no"),
    Bug("a stop leaves no row unknown", "Desk._is_done", "any(member.held for member in self._hall.crew)", "False", "tests/cluster/test_desk.py -k stop"),
    Bug("a stop waits for rows that are being claimed", "Desk._is_done", "self._claiming.locked()", "False", "tests/cluster/test_office.py -k being_claimed"),
    Bug("a resume waits for the leases of a desk that was killed", "carrying.LEASES_OVER", "", "0.0", "tests/cluster/test_desk.py -k second_signal"),
    Bug("the ledger knows that workers hold leases", "Desk.run", "ledger.set_meta(leased=True)", "None", "tests/cluster/test_desk.py -k second_signal"),
    Bug("a worker of another version is refused", "Hall._unfit", "message['version'] != __version__", "False", "tests/cluster/test_desk.py -k differs"),
    Bug("a worker of another server is refused", "Hall._unfit", "message['origin'] != self._origin", "False", "tests/cluster/test_desk.py -k differs"),
    Bug("a worker of another account is refused", "Hall._unfit", "self._account and message['account'] and (message['account'] != self._account)", "False", "tests/cluster/test_desk.py -k account"),
    Bug("a bug in looking for workers ends the run", "Hiring._is_away", "", "return True", "tests/cluster/test_hiring.py -k a_bug"),
    Bug("a scheduler that is away ends no run", "Hiring._is_away", "", "return False", "tests/cluster/test_hiring.py -k trouble"),
    Bug("after an outage the rate of all workers grows again", "Hall._renew", "self._pace.present_rate()", "self._pace.rate.present", "tests/cluster/test_office.py -k grows"),
)  # fmt: skip

BUGS = (
    *LEDGER,
    *APPLIER,
    *PACE,
    *ZSTACK,
    *PLANNER,
    *ENGINE,
    *MANIFEST,
    *COMMAND_LINE,
    *LOOKING,
    *NOTIFY,
    *LIVE,
    *CAMPAIGN,
    *TABLES,
    *PLUGINS,
    *SOURCES,
    *SCHEDULE,
    *FLEET,
    *CLUSTER,
)
