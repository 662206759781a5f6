"""The Grafana dashboard asks for metrics that exist."""

import json
import re
from pathlib import Path

import pytest

from recipes.launching.ray_metrics import EVALUATED, GAUGES, STALL

DASHBOARD = Path(__file__).parents[2] / "cluster" / "grafana" / "t5_training.json"


def dashboard():
    return json.loads(DASHBOARD.read_text(encoding="utf-8"))


def queries():
    content = dashboard()
    return [target["expr"] for panel in content["panels"] for target in panel["targets"]] + [
        variable["query"]["query"] for variable in content["templating"]["list"] if variable["type"] == "query"
    ]


def asked_for():
    return {name for query in queries() for name in re.findall(r"\bray_\w+", query)}


def ours():
    names = [name for name, _ in [*GAUGES.values(), EVALUATED]]
    # Prometheus calls a counter so.
    return {f"ray_{name}" for name in names} | {f"ray_{STALL[0]}_total"}


def test_every_query_names_a_metric_that_we_or_ray_export():
    from ray.dashboard.modules.reporter.reporter_agent import METRICS_GAUGES

    rays = {f"ray_{name}" for name in METRICS_GAUGES}
    assert asked_for() - ours() - rays == set()
    assert ours() - asked_for() == set()


@pytest.mark.parametrize("query", queries())
def test_queries_are_well_formed(query):
    assert query.count("(") == query.count(")")
    assert query.count("{") == query.count("}")
    labels = re.findall(r'[{,]\s*(\w+)\s*=~?"', query)
    assert set(labels) <= {"run", "trial"}


def test_panels_stand_beside_each_other_with_what_grafana_needs():
    content = dashboard()
    # Grafana 8 had 30; newer ones read older files.
    assert 30 <= content["schemaVersion"] <= 41
    panels = content["panels"]
    assert len({panel["id"] for panel in panels}) == len(panels) == 12
    cells = [
        (x, y)
        for panel in panels
        for x in range(panel["gridPos"]["x"], panel["gridPos"]["x"] + panel["gridPos"]["w"])
        for y in range(panel["gridPos"]["y"], panel["gridPos"]["y"] + panel["gridPos"]["h"])
    ]
    assert len(set(cells)) == len(cells)
    assert max(x for x, _ in cells) == 23
    known = {variable["name"] for variable in content["templating"]["list"]}
    used = set(re.findall(r"\$\{?(\w+)", json.dumps(panels)))
    assert used <= known
    for panel in panels:
        assert panel["datasource"]["uid"] == "${datasource}"
        assert len({target["refId"] for target in panel["targets"]}) == len(panel["targets"])
