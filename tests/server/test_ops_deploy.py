"""What documents, dashboard and containers name is there: metrics in /metrics, settings in the configuration."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import msgspec
import pytest
import yaml
from prometheus_client.parser import text_string_to_metric_families
from serving import new_speech

from streamer.performance import TurnReport
from streamer.server.metrics import Metrics
from streamer.server.settings import Settings, load_settings

ROOT = Path(__file__).parents[2]
DEPLOY = ROOT / "deploy"
OPERATIONS = (ROOT / "docs/operations.md").read_text(encoding="utf-8")
DASHBOARD = json.loads((DEPLOY / "grafana/dashboard.json").read_text(encoding="utf-8"))
FILES = [path for path in sorted(DEPLOY.rglob("*")) if path.is_file()]


class Exposed:
    """What a server that has done everything once tells: names of families, and of single series with their labels."""

    def __init__(self) -> None:
        speech = new_speech()
        try:
            metrics = Metrics(speech, lambda: 1)
            metrics.turn_completed(TurnReport("t", 0, 3, 240, 90.0, 0.2, "end"))
            metrics.refused("overloaded")
            metrics.http_request("/healthz", 200)
            families = list(text_string_to_metric_families(metrics.render("")[0].decode()))
        finally:
            speech.close()
        samples = [sample for family in families for sample in family.samples]
        self.series = {sample.name: set(sample.labels) for sample in samples} | ABSENT_AT_REST
        self.families = {documented_name(family) for family in families} | ABSENT_AT_REST.keys()


# There is no least lead while nobody is spoken to.
ABSENT_AT_REST: dict[str, set[str]] = {"streamer_engine_least_lead_seconds": set()}


def documented_name(family: Any) -> str:
    if family.type == "counter":
        return f"{family.name}_total"
    # The text format has no type for an info; the library gives it as a gauge.
    return str(family.name)


def setting_names() -> set[str]:
    return {
        f"{section.name}.{field.name}"
        for section in msgspec.structs.fields(Settings)
        for field in msgspec.structs.fields(section.type)
    }


@pytest.fixture(scope="module")
def exposed() -> Exposed:
    return Exposed()


def test_the_documented_metrics_are_those_that_are_exposed(exposed: Exposed) -> None:
    documented = set(re.findall(r"^\| `(streamer_\w+)` \|", OPERATIONS, re.MULTILINE))
    assert documented == {name for name in exposed.families if name.startswith("streamer_")}
    named = set(re.findall(r"`((?:streamer|process)_\w+)`", OPERATIONS))
    assert named <= exposed.families


def test_the_dashboard_asks_for_series_and_labels_that_are_exposed(exposed: Exposed) -> None:
    targets = [target for panel in DASHBOARD["panels"] for target in panel["targets"]]
    assert len(targets) > 20
    for target in targets:
        names = re.findall(r"\b((?:streamer|process)_\w+)", target["expr"])
        assert names, target["expr"]
        assert set(names) <= exposed.series.keys(), target["expr"]
        labels = {label for by in re.findall(r"by \(([^)]*)\)", target["expr"]) for label in by.split(", ")}
        labels |= set(re.findall(r"\{\{(\w+)\}\}", target["legendFormat"]))
        assert labels <= exposed.series[names[0]], target["expr"]


@pytest.mark.parametrize("path", FILES, ids=[str(path.relative_to(DEPLOY)) for path in FILES])
def test_a_file_of_the_deployment_names_settings_that_exist(path: Path) -> None:
    text = path.read_text(encoding="utf-8")
    known = {f"STREAMER_{name.upper().replace('.', '__')}" for name in setting_names()}
    assert set(re.findall(r"STREAMER_\w+__\w+", text)) <= known
    load_settings(None, dict(re.findall(r"\b(STREAMER_\w+)\s*[=:]\s*\"?([^\s\"]+)", text)))


def test_compose_mounts_files_that_exist_and_leaves_time_to_drain() -> None:
    compose = yaml.safe_load((DEPLOY / "compose.yaml").read_text(encoding="utf-8"))
    services = compose["services"]
    for service in services.values():
        for volume in service["volumes"]:
            source = volume.partition(":")[0]
            assert source in compose["volumes"] or (DEPLOY / source).is_file(), volume
        for port in service["ports"]:
            assert port.startswith("127.0.0.1:"), "without keys, nobody else may come in"
    drain_s = re.search(r"DRAIN_S=(\d+)", (DEPLOY / "Dockerfile").read_text(encoding="utf-8"))
    assert drain_s is not None
    assert int(services["streamer"]["stop_grace_period"].removesuffix("s")) > int(drain_s[1])
    scraped = yaml.safe_load((DEPLOY / "prometheus.yml").read_text(encoding="utf-8"))["scrape_configs"][0]
    assert scraped["static_configs"][0]["targets"] == ["streamer:8000"]
    for name in ("datasource", "provider"):
        assert yaml.safe_load((DEPLOY / f"grafana/{name}.yaml").read_text(encoding="utf-8"))["apiVersion"] == 1


def test_every_section_and_setting_that_operations_names_exists() -> None:
    sections = set(re.findall(r"^\| `(\w+)` \| (?!\w+ \|)", OPERATIONS, re.MULTILINE))
    assert sections >= set(Settings.__struct_fields__)
    named = set(re.findall(rf"`((?:{'|'.join(Settings.__struct_fields__)})\.\w+)", OPERATIONS))
    assert named
    assert named <= setting_names()


def test_dockerfiles_copy_what_the_build_needs() -> None:
    ignored = (DEPLOY / "Dockerfile.dockerignore").read_text(encoding="utf-8").splitlines()
    assert ignored == (DEPLOY / "Dockerfile.cuda.dockerignore").read_text(encoding="utf-8").splitlines()
    let_in = [line.removeprefix("!") for line in ignored if line.startswith("!")]
    assert all((ROOT / name).exists() for name in let_in)
    packages = re.search(r"packages = \[(.*?)\]", (ROOT / "pyproject.toml").read_text(encoding="utf-8"), re.DOTALL)
    assert packages is not None
    for package in re.findall(r'"([^"]+)"', packages[1]):
        assert any(package == name or package.startswith(f"{name}/") for name in let_in), package
