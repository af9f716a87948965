"""The trainer's tests of its Jobs and loops, on a real API server that knows every kind; the tests are its controllers."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from . import plane_tools
from .charts import ROOT
from .conftest import built
from .control_plane import ControlPlane

TESTS = ("test_trainer_jobs.py", "test_trainer_job_kinds.py", "test_trainer_job_run.py", "test_trainer_loops.py")


@pytest.fixture
def api_only(tmp_path: Path) -> str:
    """Says in the report what is real: a control plane without controllers, which would do what the tests say."""
    if not os.environ.get("MILLSTREAM_DEPLOY"):
        pytest.skip("needs a control plane, which `make test-deploy` starts")
    built(*plane_tools.PLANE)
    return str(tmp_path)


@pytest.mark.timeout(1600)  # a few inside may each wait for minutes on a busy machine, and say what for
def test_the_trainers_tests_pass_on_a_real_api_server(api_only: str) -> None:
    """One Job of a cause though dispatchers race and one is killed; every kind; rights and policies as the chart has them."""
    files = [str(ROOT / "services" / "trainer" / "tests" / name) for name in TESTS]
    files.append(str(Path(__file__).parent / "test_training_api.py"))
    with ControlPlane(Path(api_only)).running(api_only=True) as plane:
        plane.install_crds()
        known = os.environ | {"MILLSTREAM_TEST_KUBECONFIG": str(plane.kubeconfig)}
        known.pop("MILLSTREAM_DEPLOY")  # whose report is ours to write
        options = ("-q", "-n", "0", "--timeout=300", "-p", "no:cacheprovider")
        said = subprocess.run(
            [sys.executable, "-m", "pytest", *options, *files],
            cwd=ROOT,
            env=known,
            capture_output=True,
            text=True,
            check=False,
            timeout=1500,
        )

    assert said.returncode == 0, said.stdout[-6000:] + said.stderr[-2000:]
    assert " passed" in said.stdout
