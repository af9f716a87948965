"""Writes the goldens anew: python -m tests.deploy.goldens. What Helm renders of each chart with each of its examples."""

from __future__ import annotations

import shutil

from millstream.testing.cache import cache_folder

from .charts import EXAMPLES, GOLDENS, golden, template
from .tools import TOOLS


def main() -> None:
    helm = TOOLS[0].path(cache_folder())
    shutil.rmtree(GOLDENS, ignore_errors=True)
    for chart, values in EXAMPLES:
        path = golden(chart, values)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(template(helm, chart, values))


if __name__ == "__main__":
    main()
