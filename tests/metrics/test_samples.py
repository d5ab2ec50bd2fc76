"""The alert rules, the dashboard and the manual name metrics that exist, and the rules fire when they should."""

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from bulkimg.meter import Meter
from bulkimg.metrics import Ended, Figures, Job, families, write
from bulkimg.metrics.exposition import text
from bulkimg.pace import Pace
from tests.conftest import ROOT
from tests.metrics.reading import accepted, parsed

ALERTS = ROOT / "samples" / "monitoring" / "alerts.yml"
DASHBOARD = ROOT / "samples" / "monitoring" / "grafana.json"
PAGE = ROOT / "docs" / "how-to" / "monitoring.md"


@pytest.fixture
def known(tmp_path: Path) -> set[str]:
    """Return the names of all metrics, as they are written."""
    (place := tmp_path / "known").mkdir()
    write(place, Ended(Job("j"), 1.0, 0))
    of_jobs = parsed(next(place.iterdir()).read_text())
    return {*of_jobs, *parsed(text(families(Figures(Pace(50.0, 16), Meter()))))}


def expressions() -> Iterator[str]:
    """Yield every query of the dashboard, as Grafana sends it."""
    for panel in json.loads(DASHBOARD.read_text())["panels"]:
        for target in panel.get("targets", ()):
            yield target["expr"].replace("$__rate_interval", "1m")


def test_every_metric_that_is_named_exists_and_is_explained(known: set[str]) -> None:
    def named(place: str) -> set[str]:
        return set(re.findall(r"\bbulkimg_[a-z_]+(?<!bulkimg_job)\b", place))

    assert named(ALERTS.read_text()) <= known
    assert named("\n".join(expressions())) == known, "the dashboard shows every metric"
    families = {re.sub("_(bucket|sum|count)$", "", name) for name in known}
    assert set(re.findall(r"^\| `(bulkimg_[a-z_]+)` \|", PAGE.read_text(), re.MULTILINE)) == families


def test_the_panels_of_the_dashboard_are_whole_and_do_not_overlap() -> None:
    dashboard = json.loads(DASHBOARD.read_text())
    panels: list[dict[str, Any]] = dashboard["panels"]
    assert len({panel["id"] for panel in panels}) == len(panels)
    cells = [
        (x, y)
        for place in (panel["gridPos"] for panel in panels)
        for x in range(place["x"], place["x"] + place["w"])
        for y in range(place["y"], place["y"] + place["h"])
    ]
    assert len(set(cells)) == len(cells)
    assert max(x for x, _ in cells) == 23
    sources = {panel["datasource"]["uid"] for panel in panels if panel["type"] != "row"}
    assert sources == {"${datasource}"}
    assert [variable["name"] for variable in dashboard["templating"]["list"]] == ["datasource"]


def test_every_panel_has_a_unit_a_query_and_the_data_source_that_is_chosen() -> None:
    for panel in json.loads(DASHBOARD.read_text())["panels"]:
        if panel["type"] == "row":
            continue
        assert panel["fieldConfig"]["defaults"]["unit"], panel["title"]
        assert panel["targets"], panel["title"]
        for query in panel["targets"]:
            assert query["datasource"] == {"type": "prometheus", "uid": "${datasource}"}, panel["title"]
        assert len({query["refId"] for query in panel["targets"]}) == len(panel["targets"])


def test_promtool_accepts_the_rules_and_every_query(promtool: str, tmp_path: Path) -> None:
    accepted(promtool, "check", "rules", str(ALERTS))
    rules = [{"record": f"query:{number}", "expr": query} for number, query in enumerate(expressions())]
    place = tmp_path / "queries.yml"  # JSON is YAML
    place.write_text(json.dumps({"groups": [{"name": "dashboard", "rules": rules}]}))
    accepted(promtool, "check", "rules", str(place))


@pytest.mark.parametrize("label", ["job", "exported_job"])
def test_the_rules_fire_for_a_job_that_fails_or_is_late(promtool: str, tmp_path: Path, label: str) -> None:
    """`exported_job` is what Prometheus makes of our label where node_exporter is scraped without honor_labels."""
    node = ',job="node"' if label == "exported_job" else ""

    def series(name: str, job: str, values: str) -> dict[str, str]:
        return {"series": f'{name}{{{label}="{job}",instance="h:9100"{node}}}', "values": values}

    def alerts(hours: int, rule: str, **jobs: str) -> dict[str, Any]:
        found = [
            {
                "exp_labels": {label: job, "instance": "h:9100", "severity": "warning"}
                | ({"job": "node"} if node else {}),
                "exp_annotations": {"summary": said},
            }
            for job, said in jobs.items()
        ]
        return {"eval_time": f"{hours}h", "alertname": rule, "exp_alerts": found}

    success, code = "bulkimg_last_success_timestamp_seconds", "bulkimg_last_run_exit_code"
    late = "bulkimg job {} has not succeeded for 26 hours"
    fine = ALERTS.read_text()
    rules = tmp_path / "rules.yml"  # without the descriptions, which the test need not repeat
    rules.write_text(re.sub(r"^ +description: .*\n", "", fine, flags=re.MULTILINE))
    test = {
        "rule_files": [str(rules)],
        "evaluation_interval": "1h",
        "tests": [
            {
                "interval": "1h",
                "input_series": [
                    series(success, "nightly", "3600x60"),
                    series(success, "well", "0+3600x60"),
                    series(success, "nightly (undo)", "0x60"),
                    series(success, "tidy-undo", "3600x60"),  # a job, whatever its name ends in
                    series(code, "nightly", "0x10 1x50"),
                    series(code, "well", "0x60"),
                ],
                "alert_rule_test": [
                    alerts(27, "BulkimgNoSuccess"),
                    alerts(28, "BulkimgNoSuccess", **{job: late.format(job) for job in ("nightly", "tidy-undo")}),
                    alerts(10, "BulkimgRunFailed"),
                    alerts(12, "BulkimgRunFailed", nightly="bulkimg job nightly ended with exit code 1"),
                ],
            }
        ],
    }
    place = tmp_path / "test.yml"
    place.write_text(json.dumps(test))
    accepted(promtool, "test", "rules", str(place))
