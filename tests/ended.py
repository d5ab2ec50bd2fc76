"""Execute a run of the library to its end."""

import bulkimg


async def ended(run: bulkimg.Run) -> bulkimg.Summary:
    """Return the summary of a run. An error at its end must have the summary's exit code, and the run as `result`."""
    raised: bulkimg.BulkimgError | None = None
    try:
        async for _ in run:
            pass
    except (bulkimg.TargetError, bulkimg.RunRefused) as error:
        raised = error
    summary = run.summary
    assert summary is not None, raised
    assert (raised.exit_code if raised else None) == (summary.exit_code if summary.exit_code in (5, 7) else None)
    assert raised is None or raised.result.run_id == summary.run_id
    return summary
