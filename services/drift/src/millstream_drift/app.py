"""Front door of drift: picks the adapters and wires the doorways. Importing does nothing."""

from __future__ import annotations

import time
from collections.abc import Sequence
from functools import partial

from millstream.contracts.tasks import Task
from millstream.project import Loop, load_project
from millstream.project.drift import Span
from millstream.runtime.codecs import codecs_for
from millstream.runtime.packages import PackageStore
from millstream.runtime.service import Service
from millstream_drift.adapters.children import Children
from millstream_drift.adapters.classifier_contents import ClassifierContents
from millstream_drift.adapters.evidently_reports import EvidentlyReports
from millstream_drift.adapters.kafka_events import KafkaEvents
from millstream_drift.adapters.package_models import PackageModels
from millstream_drift.adapters.valkey_snapshots import ValkeySnapshots
from millstream_drift.api import routes
from millstream_drift.domain.content import ContentRules
from millstream_drift.domain.guards import Bounds
from millstream_drift.domain.judge import Rules
from millstream_drift.domain.trials import TrialRules
from millstream_drift.domain.windows import MOST_ROWS
from millstream_drift.handlers import Judging
from millstream_drift.metrics import DriftMetrics
from millstream_drift.settings import Settings
from millstream_drift.subscribers import hear, shares


def rules_of(loop: Loop) -> Rules:
    """What the loop's file says about drift, in the domain's words."""
    drift, rollout, guards = loop.drift, loop.rollout, loop.rollout.guards
    return Rules(
        loop=loop.name,
        asked=loop.predict.on,
        window=MOST_ROWS if isinstance(drift.window, Span) else drift.window,
        span=drift.window.micros if isinstance(drift.window, Span) else 0,
        columns=frozenset(drift.columns) if isinstance(drift.columns, tuple) else None,
        important=drift.columns == "important",
        psi=drift.psi,
        agree=drift.confirm.agree,
        windows=drift.confirm.windows,
        drop=drift.performance.drop,
        within=loop.label.within,
        task=Task(loop.model.task),
        estimate=drift.estimate,
        report_every=drift.report_every,
        trials=TrialRules(
            task=Task(loop.model.task),
            slices=loop.gate.slices,
            error_rate=rollout.error_rate,
            bounds=Bounds(failures=guards.failures, slower=guards.slower, psi=guards.psi),
        ),
        content=ContentRules(
            loop=loop.name,
            asked=loop.predict.on,
            names=drift.content,
            auc=drift.auc,
            agree=drift.confirm.agree,
            windows=drift.confirm.windows,
        ),
        quiet=loop.retrain.rests(),
    )


def create_app(settings: Settings) -> Service:
    """One drift process. Raises BadProject, with every mistake, when the project cannot be read."""
    project = load_project(settings.project)
    service = Service("drift", settings, title="Millstream drift")
    metrics = DriftMetrics(service.registry)
    codecs = codecs_for(service, project.streams, settings)
    models = PackageModels(PackageStore(settings.packages))
    snapshots = ValkeySnapshots(settings.valkey, settings.namespace, project.loops)
    children = Children(most=settings.report_workers, timeout=settings.report_timeout)
    reports = EvidentlyReports(
        settings.data / "reports", metrics=metrics, children=children, keep=settings.reports_kept
    )
    judgings: list[tuple[str, Sequence[str], Judging]] = []
    for group, names in shares(project.loops, settings.shares).items():
        events = KafkaEvents(
            loops=project.loops,
            streams=project.streams,
            codecs=codecs,
            models=models,
            metrics=metrics,
            clock=time.monotonic,
            patience=settings.model_patience,
            mine=names,
        )
        judging = Judging(
            rules={name: rules_of(project.loops[name]) for name in names},
            reader=events,
            models=models,
            snapshots=snapshots,
            speaker=service.publisher,
            reports=reports,
            comparisons=ClassifierContents(children=children),
            health=service.health,
            metrics=metrics,
            group=group,
        )
        judgings.append((group, events.topics, judging))
    service.app.include_router(routes({name: one for _, _, one in judgings for name in one.rules}, reports))
    # Before the group is joined: a member that waits for Valkey while it takes partitions over would be thrown out.
    service.before_hearing("valkey", snapshots.check)
    hear(service, codecs, judgings=judgings, model=models.apply)
    service.keeps("drawing reports", reports.run)
    for group, _, judging in judgings:
        service.keeps(f"keeping snapshots of {group}", partial(judging.keep_saving, settings.snapshot_every))
        service.keeps(f"comparing contents of {group}", judging.keep_comparing)
        service.at_stop(judging.save)
    service.at_stop(snapshots.close)
    return service
