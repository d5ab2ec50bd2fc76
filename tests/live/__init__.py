"""Tests of what watches runs: `bulkimg watch` and `bulkimg ui`, as processes, over real sockets and terminals."""
