"""What `--help` says besides the options: examples, exit codes, and the groups of the options."""

from collections.abc import Mapping, Sequence

EXIT_CODES: Mapping[int, str] = {
    0: "every row is updated or unchanged",
    1: "finished, but some rows are not fine",
    2: "usage or configuration is wrong; nothing was sent",
    3: "the manifest is refused; nothing was sent",
    4: "stopped by --max-errors or the canary",
    5: "the server cannot be reached, or refuses the login",
    6: "--max-duration has passed; resumable",
    7: "refused by a guard, by you, or because another process holds the run",
    8: "the local disk or the ledger failed",
    10: "plan --detailed-exitcode found changes",
    130: "interrupted (130 SIGINT, 143 SIGTERM); resumable",
}
_SENDING = (0, 1, 2, 3, 4, 5, 6, 7, 8, 130)
_AGAIN = (0, 1, 2, 4, 5, 6, 7, 8, 130)
_READING = (0, 2, 8)

Examples = Sequence[tuple[str, str]]  # a command line, and what it is for

EXAMPLES: Mapping[str, Examples] = {
    "run": (
        ("bulkimg run relabel.csv", "check, show the plan, ask, send"),
        ("bulkimg run relabel.csv --canary 5 --note CHG-17", "send five rows first, keep the ticket"),
        ("bulkimg run jobs/nightly.toml --yes -q", "a scheduled job: no question, silent when all is well"),
    ),
    "check": (
        ("bulkimg check relabel.csv", "every problem and warning, with its fix"),
        ("bulkimg check relabel.csv --strict", "warnings are problems too"),
        ("bulkimg check - --format jsonl --json < rows.jsonl", "from standard input, as JSON"),
    ),
    "plan": (
        ("bulkimg plan relabel.csv", "what would change, and plan.html to review"),
        ("bulkimg plan relabel.csv --detailed-exitcode", "exit 10 when anything would change"),
        ("bulkimg plan relabel.csv --max-changes 5%", "say whether a guard would refuse it"),
    ),
    "apply": (
        ("bulkimg apply last", "send the newest run's plan"),
        ("bulkimg apply last --canary 5", "send five rows first"),
        ("bulkimg apply RUN --checksum 1f3a9c0e", "only if it is the plan that was reviewed"),
    ),
    "resume": (
        ("bulkimg resume RUN", "send what an interrupted run left"),
        ("bulkimg resume RUN --rate 5/s", "more slowly than before"),
        ("bulkimg resume RUN --max-errors none", "without a limit for failed rows"),
    ),
    "retry": (
        ("bulkimg retry RUN", "a new run of the rows that are failed, unknown or unprocessed"),
        ("bulkimg retry RUN --retries 10", "with more retries per row"),
        ("bulkimg retry RUN --yes --json", "in a script"),
    ),
    "merge": (
        ("bulkimg merge runs/relabel-*-of-4", "one run of the runs of four shards"),
        ("bulkimg merge RUN RUN --partial", "although shards are missing or not finished"),
        ("bulkimg merge RUN RUN RUN --results all.xlsx", "with one table of all rows"),
    ),
    "undo": (
        ("bulkimg undo last", "put the old values back, after a question"),
        ("bulkimg undo RUN --plan", "only show what would be put back"),
        ("bulkimg undo RUN --where platform=Linux", "only these rows"),
    ),
    "verify": (
        ("bulkimg verify last", "what has drifted since the newest run"),
        ("bulkimg verify RUN --json", "as JSON, all of it"),
        ("bulkimg verify RUN --rate 5/s", "slowly, next to other work"),
    ),
    "ctl": (
        ("bulkimg ctl last status", "how a running run is doing"),
        ("bulkimg ctl last rate=5/s concurrency=4", "slow it down"),
        ("bulkimg ctl last pause", "begin no new row until `go`"),
    ),
    "status": (
        ("bulkimg status", "the newest run"),
        ("bulkimg status RUN --json", "as JSON"),
        ("bulkimg status RUN --runs-dir /srv/runs", "a run kept elsewhere"),
    ),
    "runs": (
        ("bulkimg runs --limit 10", "the newest ten"),
        ("bulkimg runs --state stopped", "what can be resumed"),
        ("bulkimg runs --prune --keep 30 --older-than 90d", "remove old finished runs"),
    ),
    "report": (
        ("bulkimg report --open", "the newest run, in the browser"),
        ("bulkimg report RUN --compare OTHER", "next to the figures of another run"),
        ("bulkimg report RUN --out /srv/www/run.html", "in another place"),
    ),
    "results": (
        ("bulkimg results RUN --as xlsx", "a workbook with every row, in the run's directory"),
        ("bulkimg results RUN --out relabel.xlsx", "in another place"),
        ("bulkimg results last --as jsonl", "the newest run, for a program"),
    ),
    "watch": (
        ("bulkimg watch", "the newest run, until it ends"),
        ("bulkimg watch RUN --interval 5s", "a look every five seconds"),
        ("bulkimg watch RUN --json", "wait for its end, then its status as JSON"),
    ),
    "ui": (
        ("bulkimg ui --open", "all runs, in the browser"),
        ("bulkimg ui RUN --port 8090", "one run, at a port that stays the same"),
        ("bulkimg ui --runs-dir /srv/runs --idle 8h", "runs kept elsewhere, for a working day"),
    ),
    "show": (
        ("bulkimg show 51431193e6c3f3391a2b8f1ff1fd42a2", "an image, and what runs here did to it"),
        ("bulkimg show UUID --json", "as JSON"),
        ("bulkimg show UUID --runs-dir /srv/runs", "with the history of other runs"),
    ),
    "export": (
        ("bulkimg export -o images.csv", "all images, to edit"),
        ("bulkimg export --where platform=Linux --fields name", "some images, one field"),
        ("bulkimg export --with-expectations -o images.csv", "later edits by others become conflicts"),
    ),
    "try": (
        ("bulkimg try UUID --set name=web-01", "show one change as curl"),
        ("bulkimg try UUID --set name=web-01 --send", "send it and show the answer"),
        ("bulkimg try UUID --set virtio=true --action-key updateImage", "in the server's own spelling"),
    ),
    "sandbox": (
        ("bulkimg sandbox", "a practice server on 127.0.0.1:8080"),
        ("bulkimg sandbox --dialect documented", "as the API's page documents it"),
        ("bulkimg sandbox --images 2000 --service-time 200", "a slow server with many images"),
    ),
    "doctor": (
        ("bulkimg doctor", "check set-up and server; changes nothing"),
        ("bulkimg doctor --profile prod", "with a profile"),
        ("bulkimg doctor --json", "as JSON"),
    ),
    "notify": (
        ("bulkimg notify --test jobs/nightly.toml", "is every address of the job reached"),
        ("bulkimg notify --test job.toml --json", "as JSON"),
        ("bulkimg notify --test job.toml --profile prod", "with the addresses of a profile, if the job has none"),
    ),
    "schedule": (
        ('bulkimg schedule job.toml --when "02:30" --as systemd', "print the units, and the next three times"),
        ('bulkimg schedule job.toml --when "30 2 * * 1-5" --as cron', "a line for crontab -e"),
        ("bulkimg schedule --list", "what is in place, and what has changed since"),
    ),
    "init": (
        ("bulkimg init > job.toml", "a commented job file"),
        ("bulkimg init jobs/nightly.toml", "the same, in a file that does not exist yet"),
        ("bulkimg run job.toml --dry-run", "then check it"),
    ),
    "schema": (
        ("bulkimg schema", "which documents have a schema"),
        ("bulkimg schema summary", "the JSON Schema of summary.json"),
        ("bulkimg schema job > job.schema.json", "for an editor that checks job files"),
    ),
    "help": (
        ("bulkimg help", "list the topics"),
        ("bulkimg help credentials", "read one"),
        ("bulkimg help run", "the same as bulkimg run --help"),
    ),
}

CODES_OF: Mapping[str, Sequence[int]] = {
    "run": _SENDING,
    "check": (0, 2, 3),
    "plan": (0, 1, 2, 3, 5, 8, 10, 130),
    **dict.fromkeys(("apply", "resume", "retry", "undo"), _AGAIN),
    "verify": (0, 1, 2, 5, 8),
    "merge": (0, 1, 2, 7, 8),
    "export": (0, 2, 5, 8),
    "try": (0, 1, 2, 5),
    "doctor": (0, 2, 5),
    "show": (0, 1, 2, 5),
    "ctl": (0, 2, 7),
    "notify": (0, 1, 2),
    "schedule": (0, 2, 7, 8),
    **dict.fromkeys(("status", "runs"), _READING),
    **dict.fromkeys(("report", "results"), (0, 2, 7, 8)),
    "watch": (0, 2, 7, 8, 130),
    "ui": (0, 2),
    **dict.fromkeys(("init", "schema", "help", "sandbox"), (0, 2)),
}
# What a code means for a command, if that is more than the general sentence.
CODES_MEAN: Mapping[tuple[str, int], str] = {
    ("check", 0): "no problem",
    ("check", 3): "at least one problem",
    ("plan", 0): "the plan is made",
    ("plan", 1): "the plan is made, but some rows are invalid, missing or conflicts",
    ("verify", 0): "every image is as the run left it",
    ("verify", 1): "at least one image differs",
    ("try", 0): "shown, or accepted by the server",
    ("try", 1): "refused by the server",
    ("doctor", 0): "everything is set up",
    ("doctor", 2): "the set-up is wrong",
    ("show", 0): "shown",
    ("show", 1): "the server has no such image",
    ("export", 0): "exported",
    ("ctl", 0): "the run has obeyed",
    ("ctl", 7): "the run cannot be controlled",
    **{(name, 0): "shown" for name in ("status", "runs", "schema", "help")},
    **{(name, 0): "written" for name in ("report", "results")},
    **{(name, 7): "the run is still reading its manifest" for name in ("report", "results")},
    ("notify", 0): "every address took the message",
    ("notify", 1): "at least one did not",
    ("watch", 0): "the run has ended, however it ended",
    ("watch", 7): "the run cannot be shown: its directory is gone, or it is of another version",
    ("watch", 130): "the watching was ended (130 Ctrl-C, 143 SIGTERM); the run continues",
    ("ui", 0): "ended with Ctrl-C, or no request for --idle",
    ("ui", 2): "usage is wrong, or the port is taken",
    ("init", 0): "written",
    ("schedule", 0): "printed, written, installed, listed or removed",
    ("schedule", 2): "the time, the job or the user cannot work; nothing was written",
    ("schedule", 7): "systemd did not take it; nothing was changed",
    ("sandbox", 0): "ended with Ctrl-C",
}


def closing(command: str) -> list[tuple[str, list[tuple[str, str]]]]:
    """Return the sections at the end of a command's help: (title, (term, meaning) pairs)."""
    codes = [(str(code), CODES_MEAN.get((command, code), EXIT_CODES[code])) for code in CODES_OF[command]]
    return [("Examples", list(EXAMPLES[command])), ("Exit codes", codes)]


GROUPS: Mapping[str, Sequence[str]] = {
    "Manifest": (
        "format", "sheet", "hidden_rows", "encoding", "map", "set", "empty_token", "allow_value", "strict", "skip_invalid",
        "skip_rows", "max_rows", "where", "tags", "tags_mode", "plugins",
    ),
    "Guards": (
        "yes", "dry_run", "canary", "max_changes", "max_errors", "allow_field", "survey", "run_id", "note", "allow_overlap",
        "lock_wait",
    ),
    "Pace": (
        "rate", "concurrency", "adaptive", "timeout", "job_timeout", "max_duration", "window", "max_outage",
        "retries",
    ),
    "Server": ("endpoint", "base_path", "profile", "ca_file", "action_key"),
    "Targets": ("targets", "order", "stop_on_failure"),
    "Fleet": ("shard", "cluster", "desk"),
    "Output": ("results", "runs_dir", "progress", "json", "log_format", "quiet", "verbose"),
    "Monitoring": ("metrics_file", "metrics_listen", "otel"),
}  # fmt: skip
# Shown by --help-all only.
RARE = frozenset({
    "sheet", "hidden_rows", "empty_token", "allow_value", "skip_rows", "max_rows", "tags", "tags_mode", "survey",
    "allow_overlap", "lock_wait", "adaptive", "timeout", "job_timeout", "window", "max_outage", "base_path", "ca_file",
    "action_key", "log_format", "metrics_file", "metrics_listen", "otel", "shard", "cluster", "desk", "targets", "order", "stop_on_failure", "plugins",
})  # fmt: skip


def group_of(option: str) -> str:
    """Return the group of an option. A command's own options come first."""
    return next((group for group, options in GROUPS.items() if option in options), "Options")


def place_of(option: str) -> int:
    """Return the place of an option in its group."""
    options = GROUPS.get(group_of(option), ())
    return options.index(option) if option in options else len(options)
