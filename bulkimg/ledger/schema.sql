-- The ledger of one run. Every other file of the run's directory can be made again from it.
-- Records are only added: a row once, an attempt once before its bytes are sent, an outcome once.

CREATE TABLE meta (
  key   TEXT PRIMARY KEY,
  value TEXT NOT NULL
) STRICT, WITHOUT ROWID;

-- Checksums of all other tables (checksums.py): damage that SQLite does not find is refused before anything is sent.
CREATE TABLE checksum (
  name  TEXT PRIMARY KEY,
  value INTEGER NOT NULL
) STRICT, WITHOUT ROWID;

CREATE TABLE row (
  ordinal  INTEGER PRIMARY KEY,       -- 1, 2, 3 … in the manifest's order
  line     INTEGER NOT NULL,          -- where it begins in the manifest; the first line is 1
  uuid     ANY,                       -- 16 bytes; the manifest's own text if it is no uuid
  fields   TEXT NOT NULL,             -- JSON: what to set, with the fields of merged rows
  expects  TEXT,                      -- JSON: the values of the `if_` columns
  cells    TEXT,                      -- JSON: the manifest's own cells; NULL for JSONL
  leader   INTEGER,                   -- the row that this row is merged into
  problems INTEGER NOT NULL DEFAULT 0
) STRICT;

CREATE TABLE problem (
  ordinal INTEGER,                    -- NULL: the manifest as a whole
  line    INTEGER NOT NULL,
  column  TEXT NOT NULL,
  value   TEXT NOT NULL,
  code    TEXT NOT NULL,
  message TEXT NOT NULL,
  fix     TEXT NOT NULL,
  fatal   INTEGER NOT NULL,
  cell    TEXT NOT NULL               -- of a workbook, such as Sheet1!B7; else ''
) STRICT;

-- Values that are allowed but rarely intended. Added after version 0.1.0, so an older ledger has no such table.
CREATE TABLE warning (
  line    INTEGER NOT NULL,
  column  TEXT NOT NULL,
  value   TEXT NOT NULL,
  code    TEXT NOT NULL,
  message TEXT NOT NULL,
  fix     TEXT NOT NULL,
  cell    TEXT NOT NULL
) STRICT;

-- The values that the survey read, and what is sent because of them. Empty in a run without a survey.
CREATE TABLE plan (
  ordinal INTEGER PRIMARY KEY,        -- rows with their own PUT: no problems, no leader
  action  TEXT NOT NULL,              -- update, unchanged, conflict, missing
  before  TEXT,                       -- JSON: the image's values of the fields that the row sets or expects
  send    TEXT,                       -- JSON: the fields that differ
  aside   TEXT                        -- JSON: the image's name, and what an undo needs besides
) STRICT;

CREATE TABLE attempt (
  ordinal     INTEGER NOT NULL,
  n           INTEGER NOT NULL,
  job_uuid    TEXT NOT NULL,
  claimed_at  REAL NOT NULL,          -- seconds since the epoch
  fate        TEXT,                   -- NULL: open; unsent, refused (not applied), unclear (may be applied)
  code        TEXT,
  http_status INTEGER,
  PRIMARY KEY (ordinal, n)
) STRICT, WITHOUT ROWID;

CREATE TABLE outcome (
  ordinal     INTEGER PRIMARY KEY,
  status      TEXT NOT NULL,
  code        TEXT NOT NULL,
  message     TEXT NOT NULL,
  hint        TEXT NOT NULL,
  http_status INTEGER,
  attempts    INTEGER NOT NULL,       -- the outcome's job uuid is the last attempt's
  started_at  INTEGER,                -- milliseconds since the epoch: exact in JSON and in a checksum
  duration_ms INTEGER,
  changed     TEXT,                   -- field names with commas; NULL in an updated row: what was sent, as it was sent
  before      TEXT,                   -- JSON
  after       TEXT                    -- JSON; NULL with `changed`
) STRICT;

-- What went on in each second with requests. The oldest seconds are merged into minutes (timeline.py).
CREATE TABLE sample (
  at          REAL NOT NULL,          -- begin, in seconds since the epoch
  seconds     INTEGER NOT NULL,       -- length: 1 or 60
  requests    TEXT NOT NULL,          -- JSON: requests by kind: put, poll, read, tag, session
  outcomes    TEXT NOT NULL,          -- JSON: rows that got their outcome, by status
  latency     TEXT NOT NULL,          -- JSON: answered PUTs by bucket (meter.py)
  in_flight   INTEGER NOT NULL,       -- rows in flight at the end
  concurrency INTEGER NOT NULL,       -- how many may be in flight then
  rate        REAL,                   -- requests a second that were allowed; NULL: unlimited
  waiting     INTEGER NOT NULL        -- rows without an outcome at the end
) STRICT;

-- What happened to the run: waits, orders, pauses, the canary, lost processes.
CREATE TABLE event (
  at   REAL NOT NULL,                 -- seconds since the epoch
  kind TEXT NOT NULL,
  text TEXT NOT NULL
) STRICT;

-- A group of outcomes is one statement and so one commit. `outcomes` is a JSON array of records in the table's order.
CREATE VIEW inbox AS SELECT NULL AS outcomes, NULL AS log_digest;
CREATE TRIGGER inbox_insert INSTEAD OF INSERT ON inbox BEGIN
  INSERT INTO outcome
  SELECT value ->> 0, value ->> 1, value ->> 2, value ->> 3, value ->> 4, value ->> 5, value ->> 6, value ->> 7,
    value ->> 8, value ->> 9, value ->> 10, value ->> 11
  FROM json_each(NEW.outcomes);
  INSERT INTO checksum VALUES ('log_digest', NEW.log_digest) ON CONFLICT DO UPDATE SET value = excluded.value;
END;

-- The present state of every row. A row without an outcome has the state of its attempts: unknown if one may have been
-- applied, else unprocessed (never sent, or refused for the time being). Resuming settles both.
CREATE VIEW row_state AS
SELECT
  row.ordinal, row.line, row.fields, row.expects, row.cells,
  CASE typeof(row.uuid) WHEN 'blob' THEN lower(hex(row.uuid)) ELSE coalesce(row.uuid, '') END AS uuid,
  outcome.ordinal IS NOT NULL AS settled,
  coalesce(outcome.status, CASE
    WHEN row.problems THEN 'invalid'
    ELSE (
      SELECT iif(max(coalesce(fate, 'open') NOT IN ('unsent', 'refused')), 'unknown', 'unprocessed')
      FROM attempt WHERE attempt.ordinal = coalesce(row.leader, row.ordinal))
  END) AS status,
  coalesce(outcome.code, CASE
    WHEN row.problems THEN (SELECT code FROM problem WHERE problem.ordinal = row.ordinal ORDER BY rowid LIMIT 1)
    ELSE (SELECT code FROM attempt WHERE attempt.ordinal = coalesce(row.leader, row.ordinal) ORDER BY n DESC LIMIT 1)
  END, '') AS code,
  outcome.message AS settled_message, outcome.hint AS settled_hint, outcome.http_status,
  coalesce(outcome.attempts,
    (SELECT count(*) FROM attempt WHERE attempt.ordinal = coalesce(row.leader, row.ordinal))) AS attempts,
  coalesce((SELECT job_uuid FROM attempt WHERE attempt.ordinal = coalesce(row.leader, row.ordinal)
    ORDER BY n DESC LIMIT 1), '') AS job_uuid,
  outcome.started_at / 1000.0 AS started_at, outcome.duration_ms,
  CASE WHEN outcome.changed IS NULL AND outcome.status = 'updated' THEN (
      SELECT group_concat(key) FROM json_each(coalesce(plan.send,
        (SELECT fields FROM row AS sent WHERE sent.ordinal = coalesce(row.leader, row.ordinal)))))
    ELSE coalesce(outcome.changed, '') END AS changed,
  outcome.before,
  CASE WHEN outcome.changed IS NULL AND outcome.status = 'updated' THEN coalesce(plan.send,
      (SELECT fields FROM row AS sent WHERE sent.ordinal = coalesce(row.leader, row.ordinal)))
    ELSE outcome.after END AS after,
  coalesce(plan.send, row.fields) ->> '$.name' IS NOT NULL AS sets_name,
  coalesce(outcome.before ->> '$.name', plan.before ->> '$.name', plan.aside ->> '$.name') AS name_before
FROM row LEFT JOIN outcome ON outcome.ordinal = coalesce(row.leader, row.ordinal) AND NOT row.problems
LEFT JOIN plan ON plan.ordinal = coalesce(row.leader, row.ordinal);

-- The state of every row with its texts.
CREATE VIEW row_text AS
SELECT
  row_state.*,
  coalesce(settled_message, CASE status
    WHEN 'invalid' THEN (
      SELECT group_concat(trim(trim(cell || ' ' || column) || iif(value = '', '', ' ''' || value || ''''))
        || iif(cell || column || value = '', '', ': ') || message, '; ')
      FROM problem WHERE problem.ordinal = row_state.ordinal)
    WHEN 'unknown' THEN 'may have been sent; outcome not known yet'
    ELSE iif(planned, 'planned, not sent yet', iif(attempts, 'not applied, and the run stopped before the next retry',
      'not sent: the run stopped before this row')) END, '') AS message,
  coalesce(settled_hint, CASE status
    WHEN 'invalid' THEN (SELECT group_concat(fix, '; ') FROM problem WHERE problem.ordinal = row_state.ordinal)
    ELSE next || ' sends it' END, '') AS hint,
  strftime('%Y-%m-%dT%H:%M:%fZ', started_at, 'unixepoch') AS started,
  -- The image's present name: from its outcome, else as it was read, unless the run may have renamed it since.
  coalesce(after ->> '$.name', iif(sets_name AND status IN ('updated', 'drifted', 'unknown'), NULL, name_before), '') AS name
FROM row_state, (SELECT EXISTS (SELECT 1 FROM meta WHERE key = 'state' AND value = '"planned"') AS planned,
  (SELECT json_extract(value, '$') FROM meta WHERE key = 'next') AS next);

-- The lines of the result files. They are made here because this is faster than Python for a line of every row.
-- JSON is exact. In CSV, a text that a spreadsheet would run gets an apostrophe, as in bulkimg.cells.harmless.
CREATE VIEW result AS
SELECT
  ordinal, settled,
  json_object('line', line, 'uuid', uuid, 'status', status, 'code', code, 'message', message, 'hint', hint,
    'http_status', http_status, 'attempts', attempts, 'job_uuid', job_uuid, 'started_at', started,
    'duration_ms', duration_ms, 'changed', json(iif(changed = '', '[]', '["' || replace(changed, ',', '","') || '"]')),
    'before', json(before), 'after', json(after), 'name', name) || char(10) AS jsonl,
  line || ',"' || iif(trim(uuid, blank) <> '' AND instr(formula, substr(trim(uuid, blank), 1, 1)), '''', '') || replace(uuid, '"', '""')
    || '",' || status
    || ',"' || replace(code, '"', '""')
    || '","' || iif(trim(message, blank) <> '' AND instr(formula, substr(trim(message, blank), 1, 1)), '''', '')
    || replace(message, '"', '""')
    || '","' || iif(trim(hint, blank) <> '' AND instr(formula, substr(trim(hint, blank), 1, 1)), '''', '') || replace(hint, '"', '""')
    || '",' || coalesce(http_status, '') || ',' || attempts || ',' || job_uuid || ',' || coalesce(started, '')
    || ',' || coalesce(duration_ms, '') || ',"' || changed
    || '",' || coalesce('"' || replace(before, '"', '""') || '"', '')
    || ',' || coalesce('"' || replace(after, '"', '""') || '"', '')
    || ',"' || iif(trim(name, blank) <> '' AND instr(formula, substr(trim(name, blank), 1, 1)), '''', '') || replace(name, '"', '""')
    || '"' || char(10) AS csv
FROM row_text, (SELECT '=+-@' || char(65291, 65293, 65309, 65312) AS formula, char(9, 10, 13, 32, 34, 39) AS blank);
