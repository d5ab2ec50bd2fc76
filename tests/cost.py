"""Measure what one command takes: processor time, wall time and its own peak memory."""

import json
import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from tests.conftest import ROOT

# A child's peak is at least that of the process that started it, so a small one does.
_LAUNCH = """
import json, resource, subprocess, sys, time
begun = time.perf_counter()
code = subprocess.call(sys.argv[1:], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
used = resource.getrusage(resource.RUSAGE_CHILDREN)
print(json.dumps([code, used.ru_utime + used.ru_stime, time.perf_counter() - begun, used.ru_maxrss * 1024]))
"""


class Cost(NamedTuple):
    """What one process took."""

    cpu: float  # seconds
    wall: float  # seconds
    peak: int  # bytes


def cost(words: Sequence[str], code: int, place: Path, **environment: str) -> Cost:
    """Run bulkimg with these words in a folder to its end, and assert its exit code."""
    env = {**os.environ, "PYTHONPATH": str(ROOT), **environment}
    command = [sys.executable, "-S", "-c", _LAUNCH, sys.executable, "-m", "bulkimg", *words]
    done = subprocess.run(command, cwd=place, env=env, capture_output=True, text=True, check=True)
    ended, *used = json.loads(done.stdout)
    assert ended == code, f"{words}: exit {ended}"
    return Cost(*used)
