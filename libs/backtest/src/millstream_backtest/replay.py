"""One loop under one policy, from its first question to its last: the domain of drift and serving, the trainer's handlers.

Time goes in steps, as a replay's does: the questions of a step are answered by whom the last state names, then its labels
become known, then drift judges and trainer decides; what it decided holds from the next step on.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from prometheus_client import CollectorRegistry

from millstream.contracts.events import ModelRef, ReplicaObeyed, WindowCorrected, WindowSkipped
from millstream.contracts.times import to_datetime
from millstream.project import Loop
from millstream.runtime.packages import PackageStore
from millstream_backtest.answers import Voice
from millstream_backtest.journal import Journal, NoStreams
from millstream_backtest.past import Past
from millstream_backtest.runs import RunFolder, Runs
from millstream_drift.app import rules_of as drift_rules
from millstream_drift.domain.baseline import Baseline, category
from millstream_drift.domain.events import Cell, Other, Question
from millstream_drift.domain.fold import Fold, Said
from millstream_drift.domain.merge import Place
from millstream_serving.domain.roster import Standing, other_of
from millstream_serving.domain.scores import Output
from millstream_serving.domain.turn import Given, Side, given
from millstream_trainer.app import rules_of as trainer_rules
from millstream_trainer.handlers import Trainer
from millstream_trainer.metrics import TrainerMetrics

QUESTIONS: Place = ("questions", 0)
LABELS: Place = ("labels", 0)


class Replay:
    """Runs once. Its state afterwards is the outcome: `journal`, and who said what to each question."""

    def __init__(
        self, loop: Loop, past: Past, *, tick: int, project: Path, packages: Path, runs: RunFolder, threads: int
    ) -> None:
        """`tick` is a step, microseconds; `packages` a folder of this replay's own."""
        self.loop = loop
        self.past = past
        self.journal = Journal()
        self.outputs: list[Output | None] = [None] * len(past)
        """Per question what was answered; None where nobody did."""
        self.versions: list[str | None] = [None] * len(past)
        self._tick = tick
        self._store = PackageStore(str(packages))
        self._voices: dict[str, Voice] = {}
        """By version; as many as runs passed, which the budget bounds."""
        self._standing: Standing[Voice] = Standing()
        rules = drift_rules(loop)
        # What no model reads is not in the past that was read: its windows would wait for a comparison that nobody makes.
        self._fold = Fold({loop.name: replace(rules, content=replace(rules.content, names=()))})
        self._settled = 0
        self.runs = Runs(past, loop, project=project, packages=self._store, folder=runs, threads=threads)
        self._trainer = Trainer(
            rules={loop.name: trainer_rules(loop)},
            streams=(),
            announcer=self.journal,
            ends=NoStreams(),
            executor=self.runs,
            packages=self._store,
            metrics=TrainerMetrics(CollectorRegistry()),
            clock=lambda: 0,  # the one replica, this one, never falls silent
        )

    async def run(self, *, since: int, until: int, on_step: Callable[[int], None] = lambda time: None) -> None:
        """Ask the questions known from `since` to before `until` (microseconds), with the labels up to then.

        Raises whatever a run or a package may raise that no service would live through.
        """
        working = asyncio.create_task(self._trainer.work())
        try:
            await self._trainer.resume()
            await self._trainer.hear_replica(self._word())
            for time, asked, told in self._steps(since, until):
                self._hear(asked, told)
                for said in self._judge():
                    self.journal.write(said.event, said.cause)
                    # For people: they ask the trainer for nothing.
                    if not isinstance(said.event, WindowCorrected | WindowSkipped):
                        await self._trainer.hear(said.event)
                await self._obey()  # a trial begins only when the promotion before it is done
                await self._runs_end(working)
                await self._obey()
                on_step(time)
        finally:
            working.cancel()
            await asyncio.gather(working, return_exceptions=True)

    def voice(self, ref: ModelRef) -> Voice:
        """Raises BadPackage and its kin: a model that cannot be loaded here is a fault of ours."""
        if ref.version not in self._voices:
            self._voices[ref.version] = Voice(self.past, ref, self._store)
        return self._voices[ref.version]

    def _steps(self, since: int, until: int) -> list[tuple[int, range, range]]:
        """(end, questions, labels) of every step in which anything happens.

        A label that is known at the very end of a step belongs to it: what is asked at that moment finds its consequences.
        """
        asked = self.past.known_at
        told = np.array([label.time for label in self.past.labels], dtype=np.int64)
        first, last = np.searchsorted(asked, [since, until], side="left")
        # A label at `until` belongs to the last step.
        first_label, last_label = np.searchsorted(told, [since, until], side="right")
        steps_asked, steps_told = asked[first:last] // self._tick, (told[first_label:last_label] - 1) // self._tick
        steps = np.unique(np.concatenate([steps_asked, steps_told]))
        questions, labels = _ranges(steps_asked, steps, int(first)), _ranges(steps_told, steps, int(first_label))
        ends = ((steps + 1) * self._tick).tolist()
        return list(zip(ends, questions, labels, strict=True))

    def _hear(self, asked: range, told: range) -> None:
        name, fold, past = self.loop.name, self._fold, self.past
        if asked:
            heard = self._ask(asked.start, asked.stop)
            fold.hear(QUESTIONS, asked.stop, [(name, one) for one in heard], heard[-1].time)
        if told:
            labels = past.labels[told.start : told.stop]
            fold.hear(LABELS, told.stop, [(name, one) for one in labels], labels[-1].time)
        fold.merge.ended(dict(fold.merge.next))

    def _judge(self) -> list[Said]:
        fold = self._fold
        if not fold.is_due() or fold.merge.settled() <= self._settled:
            return []
        self._settled = fold.merge.settled()
        return fold.settle(self._baseline)

    def _baseline(self, loop: str, version: str) -> Baseline:
        return self._voices[version].baseline

    async def _runs_end(self, working: asyncio.Task[None]) -> None:
        states = self._trainer.states
        while states[self.loop.name].running is not None:
            if working.done():
                await working
            await asyncio.sleep(0)

    async def _obey(self) -> None:
        while (state := self.journal.state) is not None and state is not self._standing.state:
            other = other_of(state)
            self._standing = Standing(
                state=state,
                champion=None if state.champion is None else self.voice(state.champion),
                other=None if other is None else self.voice(other[0]),
            )
            await self._trainer.hear_replica(self._word())

    def _word(self) -> ReplicaObeyed:
        """What a replica says of itself: a promotion waits for it."""
        standing = self._standing
        return ReplicaObeyed(
            id=f"backtest-{standing.revision}",
            loop=self.loop.name,
            instance="backtest",
            revision=standing.revision,
            version=None if standing.champion is None else standing.champion.ref.version,
            at=to_datetime(0),
        )

    def _ask(self, start: int, stop: int) -> list[Question]:
        """The questions `start` to `stop`, answered as serving answers, and as drift hears of them."""
        past, standing = self.past, self._standing
        times = past.known_at[start:stop].tolist()
        ids, keys = past.ids[start:stop], past.keys[start:stop]
        if standing.champion is None:
            return [Question(time, id, key, None, {}, ()) for time, id, key in zip(times, ids, keys, strict=True)]
        sides = {
            role: Side(role=role, version=voice.ref.version, scores=voice.scores(start, stop))
            for role, voice in standing.models.items()
        }
        turns = standing.turns(lambda: past.entities[start:stop], stop - start)
        answers = given(sides[standing.trusted], sides.get(standing.guarded), turns)
        cells = {voice.ref.version: voice.cells(start, stop) for voice in standing.models.values()}
        heard = []
        for row, answer in enumerate(answers):
            time, id, key = times[row], ids[row], keys[row]
            if answer is None:
                heard.append(Question(time, id, key, None, {}, ()))
                continue
            self.outputs[start + row], self.versions[start + row] = answer.output, answer.version
            heard.append(self._question(start + row, answer, time, id, key, cells[answer.version][row]))
        return heard

    def _question(self, row: int, answer: Given, time: int, id: str, key: str, cells: tuple[Cell, ...]) -> Question:
        other = answer.other
        return Question(
            time,
            id,
            key,
            answer.version,
            answer.output,
            cells,
            slices=tuple(category(self.past.inputs[name][row]) for name in self.loop.gate.slices),
            other=None if other is None else Other(other.version, other.role, other.output, other.failure, 0.0),
            fallback=answer.fallback,
        )


def _ranges(numbers: NDArray[np.int64], steps: NDArray[np.int64], offset: int) -> list[range]:
    """Of each step the rows with its number; `numbers` grow."""
    starts = np.searchsorted(numbers, steps, side="left") + offset
    stops = np.searchsorted(numbers, steps, side="right") + offset
    return [range(start, stop) for start, stop in zip(starts.tolist(), stops.tolist(), strict=True)]
