"""Keep a run in run.db. It is the only place with SQL; every other file of the run is made from it."""

from bulkimg.ledger.files import LiveResults, write_results
from bulkimg.ledger.rundir import RunDirectory, find_run, list_runs, new_run
from bulkimg.ledger.store import Ledger
from bulkimg.ledger.thread import OwnThread, WriterThread
from bulkimg.ledger.writer import Writer

__all__ = [
    "Ledger",
    "LiveResults",
    "OwnThread",
    "RunDirectory",
    "Writer",
    "WriterThread",
    "find_run",
    "list_runs",
    "new_run",
    "write_results",
]
