"""Writes what is generated in deploy/charts: values.yaml, values.schema.json and README.md of each chart.

python tools/charts.py            rewrite what is stale
python tools/charts.py --check    exit 1 and name what is stale
"""

from __future__ import annotations

import importlib
import json
import sys
import textwrap
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ruamel.yaml import YAML

from millstream.runtime.settings import ServiceSettings

ROOT = Path(__file__).parents[1]
CHARTS = ROOT / "deploy" / "charts"
KNOBS = CHARTS / "knobs.yaml"
SERVICES = ("ingest", "features", "serving", "drift", "trainer")
UMBRELLA = "millstream"
OWN = frozenset(
    (
        *("kafka", "valkey", "lake", "packages", "mlflow", "project", "data", "host", "port", "instance", "grpc_port"),
        *("part", "doors", "schema_registry", "schema_registry_auth", "schema_registry_ca"),
        *("schema_registry_cert", "schema_registry_key"),
    )
)
"""Settings that a chart writes itself, from knobs of their own or as its image has them."""


@dataclass(frozen=True, kw_only=True)
class Knob:
    """One value of one chart."""

    path: tuple[str, ...]
    default: Any
    schema: Mapping[str, Any]
    why: str


def settings_of(service: str) -> type[ServiceSettings]:
    """The service's own class of settings."""
    module = importlib.import_module(f"millstream_{service}.settings")
    found = [
        thing
        for thing in vars(module).values()
        if isinstance(thing, type) and issubclass(thing, ServiceSettings) and thing.__module__ == module.__name__
    ]
    return found[0]


def settings_schema(service: str) -> dict[str, Any]:
    """What `settings` of a chart may hold: every setting that no other knob writes, as pydantic will check it."""
    said = settings_of(service).model_json_schema(mode="validation")["properties"]
    return _object({name: _plain(field) for name, field in sorted(said.items()) if name not in OWN})


def _plain(field: Mapping[str, Any]) -> dict[str, Any]:
    """Without titles, defaults and null: what is not to be set is left out."""
    kept = {key: value for key, value in field.items() if key not in ("title", "default", "description", "format")}
    if "anyOf" in kept:
        some = [_plain(one) for one in kept.pop("anyOf") if one.get("type") != "null"]
        kept |= some[0] if len(some) == 1 else {"anyOf": some}
    return kept


def _object(properties: Mapping[str, Any]) -> dict[str, Any]:
    return {"type": "object", "additionalProperties": False, "properties": dict(properties)}


def declared() -> list[Mapping[str, Any]]:
    """The entries of knobs.yaml, in their order."""
    found: list[Mapping[str, Any]] = YAML(typ="safe").load(KNOBS)
    return found


def knobs_of(chart: str) -> list[Knob]:
    """All knobs of a chart, in the order of its values.yaml."""
    found = []
    places = {chart: (), **({"scorer": ("scorer",)} if chart == "serving" else {})}
    places |= {"global": ("global",)} if chart == UMBRELLA else {}
    for place, prefix in places.items():
        for entry in declared():
            if place not in entry["in"]:
                continue
            default = entry.get("defaults", {}).get(place, entry["default"])
            schema = settings_schema(chart) if entry["is"].get("$ref") == "settings" else entry["is"]
            found.append(
                Knob(
                    path=(*prefix, *entry["knob"].split(".")),
                    default=default.replace("{chart}", chart) if isinstance(default, str) else default,
                    schema=schema,
                    why=entry["why"].replace("{chart}", chart),
                )
            )
    return found


def schema_of(chart: str) -> dict[str, Any]:
    """A chart's values.schema.json. Unknown keys are refused at every level that has names."""
    whole = _object({})
    for knob in knobs_of(chart):
        _put(whole, knob.path, knob.schema | {"description": knob.why})
    properties = whole["properties"]
    if chart == UMBRELLA:
        for service in SERVICES:  # the rest is for the service's own schema to judge
            properties[service]["additionalProperties"] = True
    else:
        shared = _object({})
        for entry in declared():
            if "global" in entry["in"]:
                _put(shared, tuple(entry["knob"].split(".")), entry["is"])
        # Other charts of the same release may keep values of their own under `global`.
        properties["global"] = shared | {"additionalProperties": True}
        properties["enabled"] = {"type": "boolean", "description": "Read by the umbrella chart."}
    properties["common"] = {"type": "object", "description": "Helm puts it there for the library chart."}
    return {"$schema": "http://json-schema.org/draft-07/schema#", "title": f"Values of {chart}"} | whole


def _put(whole: dict[str, Any], path: Sequence[str], schema: Mapping[str, Any]) -> None:
    for part in path[:-1]:
        whole = whole["properties"].setdefault(part, _object({}))
    whole["properties"][path[-1]] = dict(schema)


def values_of(chart: str) -> str:
    """A chart's values.yaml: every knob with its reason above it."""
    lines = [f"# Values of the chart {chart}. Generated from deploy/charts/knobs.yaml by `make generate`."]
    before: tuple[str, ...] = ()
    for knob in _grouped(knobs_of(chart)):
        parents = knob.path[:-1]
        same = 0
        while same < min(len(before), len(parents)) and before[same] == parents[same]:
            same += 1
        if not parents or parents[:1] != before[:1]:
            lines.append("")
        lines += [f"{'  ' * depth}{parents[depth]}:" for depth in range(same, len(parents))]
        indent = "  " * len(parents)
        lines += textwrap.wrap(
            knob.why, 112 - len(indent), initial_indent=f"{indent}# ", subsequent_indent=f"{indent}# "
        )
        lines.append(f"{indent}{knob.path[-1]}: {_inline(knob.default)}")
        before = parents
    return "\n".join(lines) + "\n"


def _grouped(knobs: Sequence[Knob]) -> Iterator[Knob]:
    """Knobs of one parent side by side, as YAML wants them, each parent where its first knob stood."""

    def place(knob: Knob) -> list[int]:
        return [
            min(i for i, other in enumerate(knobs) if other.path[: depth + 1] == knob.path[: depth + 1])
            for depth in range(len(knob.path))
        ]

    return iter(sorted(knobs, key=place))


def _inline(value: Any) -> str:
    """JSON is YAML, and fits one line."""
    if isinstance(value, dict) and value:
        return "{ " + ", ".join(f"{key}: {_inline(one)}" for key, one in value.items()) + " }"
    return json.dumps(value, ensure_ascii=False)


def readme_of(chart: str) -> str:
    """A chart's README.md: what it installs, how, and its knobs."""
    about: Mapping[str, Any] = YAML(typ="safe").load(CHARTS / chart / "Chart.yaml")
    example = (CHARTS / chart / "ci" / "minimal-values.yaml").read_text().strip()
    lines = [
        f"# {chart}",
        "",
        "Generated from deploy/charts/knobs.yaml, `Chart.yaml` and `ci/minimal-values.yaml` by `make generate`.",
        "",
        about["description"],
        "",
        "```console",
        "$ python deploy/project_values.py examples/flights > project-values.yaml",
        f"$ helm install {chart} deploy/charts/{chart} -f project-values.yaml -f values.yaml",
        f"$ helm test {chart}",
        "```",
        "",
        "The least that values.yaml has to say, with the project beside it:",
        "",
        "```yaml",
        _without_project(example),
        "```",
        "",
        "More examples are in `ci/`, what they render in tests/deploy/goldens. An unknown key is refused.",
        "",
        "| value | default | why |",
        "| --- | --- | --- |",
    ]
    for knob in _grouped(knobs_of(chart)):
        default = json.dumps(knob.default, ensure_ascii=False) if knob.default not in ("", {}, []) else ""
        shown = f"`{default}`" if default else ""
        lines.append(f"| `{'.'.join(knob.path)}` | {shown} | {knob.why} |".replace("|  |", "| |"))
    if chart == UMBRELLA:
        lines += ["", "Under `ingest`, `features`, `serving`, `drift` and `trainer` stands what their own charts know."]
    return "\n".join(lines) + "\n"


def _without_project(values: str) -> str:
    """The example up to the project, which `-f project-values.yaml` brings."""
    return values.split("\nproject:")[0].split("\n  project:")[0]


def wanted() -> dict[Path, str]:
    """Every generated file and what it should hold."""
    files = {}
    for chart in (*SERVICES, UMBRELLA):
        folder = CHARTS / chart
        files[folder / "values.yaml"] = values_of(chart)
        files[folder / "values.schema.json"] = json.dumps(schema_of(chart), indent=2, ensure_ascii=False) + "\n"
        files[folder / "README.md"] = readme_of(chart)
    return files


def stale() -> list[Path]:
    """Files that are missing or differ from what they should hold."""
    return [path for path, text in wanted().items() if not path.exists() or path.read_text() != text]


def main() -> int:
    found = stale()
    if "--check" in sys.argv[1:]:
        for path in found:
            print(f"stale: {path.relative_to(ROOT)} (run: make generate)")
        return 1 if found else 0
    files = wanted()
    for path in found:
        path.write_text(files[path])
        print(f"wrote {path.relative_to(ROOT)}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
