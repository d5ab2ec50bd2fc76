"""The command line: one small file a command; `screen` is the only place that prints."""
