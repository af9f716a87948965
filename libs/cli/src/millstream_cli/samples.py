"""One metric of a service, read from its /metrics."""

from __future__ import annotations

from collections.abc import Mapping

import httpx
from prometheus_client.parser import text_string_to_metric_families


async def samples(http: httpx.AsyncClient, url: str, name: str) -> list[tuple[Mapping[str, str], float]]:
    """Labels and value of each sample called `name`; none where the service does not answer, or says something else."""
    try:
        text = (await http.get(f"{url}/metrics")).raise_for_status().text
        families = list(text_string_to_metric_families(text))
    except (httpx.HTTPError, ValueError):
        return []
    return [(one.labels, one.value) for family in families for one in family.samples if one.name == name]
