"""Run the programs of `[[hook]]`: no shell, facts in the environment, the document on standard input."""

import json
from pathlib import Path

from bulkimg.model import Status
from bulkimg.notifications import HOOK_VARIABLE, Hook
from bulkimg.notify.children import environment, run
from bulkimg.notify.message import Document, clean


async def run_hook(hook: Hook, document: Document, job: str) -> str:
    """Run one hook. Returns "" or why it failed, with the last line of its standard error."""
    try:
        env = environment(variables(hook, document, job), credentials_directory=True)
        ended = await run(hook.run, json.dumps(document).encode(), env, hook.timeout)
    except OSError as error:
        return f"cannot be started: {error.strerror}"
    except ValueError:
        return "cannot be started"
    if ended.code == 0:
        return ""
    said = f": {clean(ended.last_line)}" if ended.last_line else ""
    if ended.code is None:
        return f"did not end within {hook.timeout:g} s and was killed{said}"
    how = f"was ended by signal {-ended.code}" if ended.code < 0 else f"ended with exit code {ended.code}"
    return f"{how}{said}"


def variables(hook: Hook, document: Document, job: str) -> dict[str, str]:
    """Return the facts for the hook. Those of the end are there once the run has ended."""
    found = {
        HOOK_VARIABLE: hook.at,
        "BULKIMG_RUN_ID": document["run_id"],
        "BULKIMG_RUN_DIR": str(Path(document["directory"]).absolute()),
        "BULKIMG_JOB": job,
        "BULKIMG_TARGET": document["target"],
    }
    if "exit_code" in document:
        counts = document.get("counts", {})
        found["BULKIMG_EXIT_CODE"] = str(document["exit_code"])
        found |= {f"BULKIMG_COUNTS_{status.name}": str(counts.get(status, 0)) for status in Status}
    return found
