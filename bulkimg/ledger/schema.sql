-- The ledger of one run: the only truth; every other file of the run's directory can be made again from it.
-- Tables are only added to: a row is written once, an attempt once before its bytes go out, an outcome once and for all.

CREATE TABLE meta (
  key   TEXT PRIMARY KEY,
  value TEXT NOT NULL
) STRICT, WITHOUT ROWID;

-- Check sums over the rest (checksums.py): damage that SQLite does not see is refused before anything is sent.
CREATE TABLE checksum (
  name  TEXT PRIMARY KEY,
  value INTEGER NOT NULL
) STRICT, WITHOUT ROWID;

CREATE TABLE row (
  ordinal  INTEGER PRIMARY KEY,       -- 1, 2, 3 … in the manifest's order
  line     INTEGER NOT NULL,          -- where it begins in the manifest, the first line being 1
  uuid     ANY,                       -- 16 bytes; the manifest's own text where that is no uuid
  fields   TEXT NOT NULL,             -- JSON: what to set, duplicates of the image merged in
  expects  TEXT,                      -- JSON: what `if_` columns ask for
  cells    TEXT,                      -- JSON: the manifest's own cells; NULL for JSONL
  leader   INTEGER,                   -- the row whose PUT carries this row too
  problems INTEGER NOT NULL DEFAULT 0
) STRICT;

CREATE TABLE problem (
  ordinal INTEGER,                    -- NULL: of the manifest as a whole
  line    INTEGER NOT NULL,
  column  TEXT NOT NULL,
  value   TEXT NOT NULL,
  code    TEXT NOT NULL,
  message TEXT NOT NULL,
  fix     TEXT NOT NULL,
  fatal   INTEGER NOT NULL
) STRICT;

-- What is allowed and hardly ever meant; added after version 0.1.0, so an older ledger has none.
CREATE TABLE warning (
  line    INTEGER NOT NULL,
  column  TEXT NOT NULL,
  value   TEXT NOT NULL,
  code    TEXT NOT NULL,
  message TEXT NOT NULL,
  fix     TEXT NOT NULL
) STRICT;

-- What the survey saw, and what would be sent because of it. A run without a survey has none.
CREATE TABLE plan (
  ordinal INTEGER PRIMARY KEY,        -- of rows that are sent by themselves: no problems, no leader
  action  TEXT NOT NULL,              -- update, unchanged, conflict, missing
  before  TEXT,                       -- JSON: what the image showed of the fields that the row names or expects
  send    TEXT,                       -- JSON: the fields that differ
  aside   TEXT                        -- JSON: what else was read: the image's name, and what an undo needs
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
  attempts    INTEGER NOT NULL,       -- the last attempt's job uuid is the outcome's
  started_at  INTEGER,                -- milliseconds since the epoch: exact in JSON, and in a checksum
  duration_ms INTEGER,
  changed     TEXT,                   -- field names with commas; NULL: all the row's fields
  before      TEXT,                   -- JSON
  after       TEXT                    -- JSON
) STRICT;

-- A group of outcomes is one statement, and so one commit: `outcomes` is a JSON array of records in the table's order.
CREATE VIEW inbox AS SELECT NULL AS outcomes, NULL AS log_digest;
CREATE TRIGGER inbox_insert INSTEAD OF INSERT ON inbox BEGIN
  INSERT INTO outcome
  SELECT value ->> 0, value ->> 1, value ->> 2, value ->> 3, value ->> 4, value ->> 5, value ->> 6, value ->> 7,
    value ->> 8, value ->> 9, value ->> 10, value ->> 11
  FROM json_each(NEW.outcomes);
  INSERT INTO checksum VALUES ('log_digest', NEW.log_digest) ON CONFLICT DO UPDATE SET value = excluded.value;
END;

-- What can be said of every row now. A row without an outcome is what its attempts tell: one that may have been applied
-- → unknown; else, never sent or only refused for the time being → unprocessed. Resuming settles both.
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
  outcome.started_at / 1000.0 AS started_at, outcome.duration_ms, coalesce(outcome.changed, '') AS changed, outcome.before, outcome.after,
  coalesce(plan.send, row.fields) ->> '$.name' IS NOT NULL AS sets_name,
  coalesce(outcome.before ->> '$.name', plan.before ->> '$.name', plan.aside ->> '$.name') AS name_before
FROM row LEFT JOIN outcome ON outcome.ordinal = coalesce(row.leader, row.ordinal) AND NOT row.problems
LEFT JOIN plan ON plan.ordinal = coalesce(row.leader, row.ordinal);

-- The same in words.
CREATE VIEW row_text AS
SELECT
  row_state.*,
  coalesce(settled_message, CASE status
    WHEN 'invalid' THEN (
      SELECT group_concat(trim(column || iif(value = '', '', ' ''' || value || ''''))
        || iif(column || value = '', '', ': ') || message, '; ')
      FROM problem WHERE problem.ordinal = row_state.ordinal)
    WHEN 'unknown' THEN 'may have been sent; outcome not known yet'
    ELSE iif(planned, 'planned, not sent yet', iif(attempts, 'not applied, and the run stopped before the next retry',
      'not sent: the run stopped before this row')) END, '') AS message,
  coalesce(settled_hint, CASE status
    WHEN 'invalid' THEN (SELECT group_concat(fix, '; ') FROM problem WHERE problem.ordinal = row_state.ordinal)
    ELSE next || ' sends it' END, '') AS hint,
  strftime('%Y-%m-%dT%H:%M:%fZ', started_at, 'unixepoch') AS started,
  -- What the image is called now: as its outcome shows, else as it was read, unless it may have been renamed since.
  coalesce(after ->> '$.name', iif(sets_name AND status IN ('updated', 'drifted', 'unknown'), NULL, name_before), '') AS name
FROM row_state, (SELECT EXISTS (SELECT 1 FROM meta WHERE key = 'state' AND value = '"planned"') AS planned,
  (SELECT json_extract(value, '$') FROM meta WHERE key = 'next') AS next);

-- And as lines of the result files, made here because a run that appends a line for every row has no time to make it in
-- Python. JSON is exact. In CSV, a text that a spreadsheet would run gets an apostrophe, as bulkimg.cells.harmless does it.
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
