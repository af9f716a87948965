"""Checks loop files against the rest of the project as `millstream check` does, in a process of its own: it imports Feast.

python -m millstream_trainer.adapters.loop_check FOLDER ANSWER    FOLDER is a whole project
"""

from __future__ import annotations

import asyncio
import sys
import tempfile
from collections.abc import Mapping
from pathlib import Path

import msgspec

from millstream.errors import RetryLater
from millstream.project import BadProject, FeatureCatalogue, Problem, load_project
from millstream_trainer.domain.loop_resource import Checked

PATIENCE = 300.0
"""Seconds. Feast takes five to ten to be imported on two busy cores."""


class ProcessCheck:
    """See `ports.LoopCheck`. `project`: the folder with streams/ and features/; its own loops/ is not looked at."""

    def __init__(self, project: Path, patience: float = PATIENCE) -> None:
        self._project = project
        self._patience = patience

    async def check(self, files: Mapping[str, str]) -> Checked:
        with tempfile.TemporaryDirectory(prefix="millstream-loops-") as work:
            folder, answer = Path(work) / "project", Path(work) / "answer.json"
            await asyncio.to_thread(self._lay_out, folder, files)
            module = "millstream_trainer.adapters.loop_check"
            process = await asyncio.create_subprocess_exec(sys.executable, "-m", module, str(folder), str(answer))
            try:
                async with asyncio.timeout(self._patience):
                    code = await process.wait()
            except TimeoutError as error:
                raise RetryLater(f"the check of the loops took more than {self._patience:.0f} s") from error
            finally:
                if process.returncode is None:
                    process.kill()
                    await process.wait()
            if code:
                raise RetryLater(f"the check of the loops ended with {code}; its words are above")
            return msgspec.json.decode(await asyncio.to_thread(answer.read_bytes), type=Checked)

    def _lay_out(self, folder: Path, files: Mapping[str, str]) -> None:
        """The project by links, with these loops in place of its own."""
        (folder / "loops").mkdir(parents=True)
        for entry in self._project.absolute().iterdir():
            if entry.name != "loops":
                (folder / entry.name).symlink_to(entry)
        for name, text in files.items():
            (folder / "loops" / name).write_text(text)


def problems_in(folder: Path) -> Checked:
    """Of a whole project."""
    from millstream_tiles.errors import TilesError
    from millstream_tiles.registry import describe

    catalogue: FeatureCatalogue | None = None
    project: list[str] = []
    try:
        if (folder / "features" / "feature_store.yaml").is_file():
            catalogue = describe(folder / "features")
    except TilesError as error:
        project.append(f"features: {error}")
    loops: dict[str, list[str]] = {}
    try:
        load_project(folder, catalogue, own_code=True)
    except BadProject as error:
        for problem in error.problems:
            place, _, name = problem.file.rpartition("/")
            if place == "loops":
                loops.setdefault(name, []).append(_words(problem))
            else:
                project.append(str(problem))
    return Checked(loops=loops, project=project)


def _words(problem: Problem) -> str:
    """Without file and line: nobody wrote that file."""
    said = f"{problem.message}; {problem.remedy}"
    return f"spec.{problem.path}: {said}" if problem.path else said


if __name__ == "__main__":
    checked = problems_in(Path(sys.argv[1]))
    Path(sys.argv[2]).write_bytes(msgspec.json.encode(checked))
