"""Read metrics as Prometheus does, in a few lines that share nothing with the writer."""

import re
import shutil
import subprocess
import urllib.request

import pytest

Labels = frozenset[tuple[str, str]]
Metrics = dict[str, dict[Labels, float]]
_LINE = re.compile(r'([a-z_]+)(?:\{((?:[a-z_]+="(?:[^"\\]|\\.)*",?)*)\})? (\S+)')


def parsed(text: str) -> Metrics:
    """Return the values by name and labels. Every line must be a comment or a value, and the last one complete."""
    assert text.endswith("\n")
    found: Metrics = {}
    for line in text.split("\n")[:-1]:
        if line.startswith("# "):
            assert line.split()[1] in ("HELP", "TYPE")
            continue
        match = _LINE.fullmatch(line)
        assert match, line
        labels = frozenset(re.findall(r'([a-z_]+)="((?:[^"\\]|\\.)*)"', match[2] or ""))
        values = found.setdefault(match[1], {})
        assert labels not in values, f"{line}: twice"
        values[labels] = float(match[3])
    return found


def value(metrics: Metrics, name: str, **labels: str) -> float:
    """Return the one value of this name that has these labels."""
    (found,) = (number for has, number in metrics[name].items() if set(labels.items()) <= has)
    return found


def by(metrics: Metrics, name: str, label: str) -> dict[str, float]:
    """Return the values of a name by one label."""
    return {dict(labels)[label]: number for labels, number in metrics[name].items()}


def described(text: str) -> list[str]:
    """Return the lines that describe metrics."""
    return [line for line in text.split("\n") if line.startswith("#")]


def scraped(port: int) -> Metrics | None:
    """Return the metrics that are served now, or None if nobody listens."""
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=10) as answer:
            return parsed(answer.read().decode())
    except OSError:
        return None


@pytest.fixture
def promtool() -> str:
    """Return the path of promtool. The test is skipped if it is missing."""
    found = shutil.which("promtool")
    if found is None:
        pytest.skip("promtool is absent")
    return found


def accepted(promtool: str, *words: str, given: str = "") -> None:
    """Assert that promtool has nothing to say against it."""
    done = subprocess.run([promtool, *words], input=given, capture_output=True, text=True, check=False, timeout=60)
    assert (done.returncode, done.stderr) == (0, ""), done.stdout + done.stderr
