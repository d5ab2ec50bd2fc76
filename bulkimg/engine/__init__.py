"""The engine: load a manifest into a ledger, execute the run, return a summary. Nothing here prints.

The command line and `import bulkimg` both use it. Progress, logs and pages are observers of the events that it emits.
"""
