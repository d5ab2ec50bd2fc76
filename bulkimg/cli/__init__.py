"""The command line: one small file for each command. Only `screen` prints."""
