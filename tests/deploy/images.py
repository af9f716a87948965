"""Our images: built from the Dockerfiles, and how large each is.

python -m tests.deploy.images    build what has changed and print the table of sizes
"""

from __future__ import annotations

import sys
import time
from collections.abc import Iterable
from dataclasses import dataclass

from millstream.testing.cache import cache_folder

from .base_image import VERSION, base_image
from .charts import ROOT, SERVICES
from .engine import Docker, engine
from .tools import NoTool

TAG = "here"
"""Not `latest`, which a node would look for in a registry."""
BUILD_WITHIN = 1800
DOCKERFILES = {service: f"services/{service}/Dockerfile" for service in SERVICES} | {"cli": "libs/cli/Dockerfile"}


@dataclass(frozen=True, kw_only=True)
class Image:
    name: str
    """As the charts call it, with our tag."""
    size: int
    """Bytes, with the image that it stands on."""
    own: int
    """Bytes of what we put on it."""
    seconds: float
    """That its build took; little where its layers were there."""


def name_of(which: str) -> str:
    return f"millstream/{which}:{TAG}"


def build(docker: Docker, which: str) -> Image:
    """Of a service, or cli. Raises NoTool with what the build said."""
    began = time.monotonic()
    docker(
        *("build", "--quiet", "--network=host", f"--build-arg=PYTHON={VERSION}"),
        *("--file", ROOT / DOCKERFILES[which], "--tag", name_of(which), ROOT),
        within=BUILD_WITHIN,
    )
    size, base = (
        int(docker("image", "inspect", "--format={{.Size}}", image)) for image in (name_of(which), base_image(docker))
    )
    return Image(name=name_of(which), size=size, own=size - base, seconds=time.monotonic() - began)


def table(images: Iterable[Image]) -> str:
    """In Markdown, the smallest first. MB are 1,000,000 bytes."""
    lines = ["| image | MB | of it ours |", "| --- | ---: | ---: |"]
    for image in sorted(images, key=lambda image: image.size):
        name = image.name.partition(":")[0]
        lines.append(f"| `{name}` | {image.size / 1e6:,.0f} | {image.own / 1e6:,.0f} |")
    return "\n".join(lines)


def main() -> int:
    try:
        with engine(cache_folder() / "dockerd.log") as docker:
            base_image(docker)
            built = []
            for which in DOCKERFILES:
                image = build(docker, which)
                print(f"millstream: {image.name} in {image.seconds:.0f} s", flush=True)
                built.append(image)
            print(table(built))
    except NoTool as error:
        print(f"millstream: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
