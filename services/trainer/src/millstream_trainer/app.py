"""Front door of the trainer: picks the adapters and wires the doorways. Importing does nothing.

The dispatcher stays light: Feast, MLflow and LightGBM are imported by the training processes alone.
"""

from __future__ import annotations

from millstream.contracts.events import Cause
from millstream.contracts.topics import LABELS
from millstream.project import Loop, load_project
from millstream.runtime.causes import Causes
from millstream.runtime.packages import PackageStore
from millstream.runtime.publisher import Publisher
from millstream.runtime.service import Service
from millstream.runtime.sole_writer import SoleWriter
from millstream_trainer.adapters.claims import Claims
from millstream_trainer.adapters.kafka_announcer import WRITER, KafkaAnnouncer
from millstream_trainer.adapters.kafka_ends import KafkaEnds
from millstream_trainer.adapters.loop_check import ProcessCheck
from millstream_trainer.adapters.offered_runs import OfferedRuns
from millstream_trainer.adapters.process_executor import ProcessExecutor
from millstream_trainer.adapters.run_notes import RunNotes
from millstream_trainer.adapters.workplace import workplace_of
from millstream_trainer.api import add_routes
from millstream_trainer.domain.rules import Mode, RolloutRules, Rules
from millstream_trainer.handlers import Trainer
from millstream_trainer.handlers.leftovers import sweep_leftovers
from millstream_trainer.handlers.loop_resources import LoopKeeper
from millstream_trainer.metrics import TrainerMetrics
from millstream_trainer.ports import Executor, StreamEnds
from millstream_trainer.settings import Settings
from millstream_trainer.subscribers import hear


def create_app(settings: Settings, *, executor: Executor | None = None, ends: StreamEnds | None = None) -> Service:
    """The trainer service; `executor` and `ends` replace the real ones in tests.

    Raises BadProject: the message names every mistake with file and line.
    """
    project = load_project(settings.project)
    service = Service("trainer", settings, title="Millstream trainer")
    metrics = TrainerMetrics(service.registry)
    executor = executor or _executor(settings, metrics, service.publisher)
    writer = SoleWriter(bootstrap=service.kafka, name=WRITER, timeout=settings.publish_timeout, metrics=service.metrics)
    causes = Causes()
    announcer = KafkaAnnouncer(service.publisher, writer, causes)
    packages = PackageStore(settings.packages)
    trainer = Trainer(
        rules={name: rules_of(loop) for name, loop in project.loops.items()},
        streams=[*project.streams, LABELS.name],
        announcer=announcer,
        ends=ends or KafkaEnds(service.kafka),
        executor=executor,
        packages=packages,
        metrics=metrics,
        causes=causes,
    )
    service.keeps("leftovers", lambda: sweep_leftovers(packages, settings.run_timeout, lambda: trainer.states))
    if settings.loop_configs:
        _keep_loops(service, settings, trainer)
    if settings.warm:
        service.keeps("fork server", executor.prepare)
    # Before the journal is read: from then on nobody else adds to it.
    service.before_hearing("sole writer", writer.start)
    hear(service, trainer, causes)
    add_routes(service.app, trainer, announcer, packages, settings.model_hosts)
    service.at_stop(executor.close)
    service.at_stop(writer.stop)
    return service


def _keep_loops(service: Service, settings: Settings, trainer: Trainer) -> None:
    """Raises BadSetup."""
    # As below: 40 MB and 2 s that few need.
    from millstream_trainer.adapters.kubernetes_loops import KubernetesLoops

    resources = KubernetesLoops.of(settings.loop_configs, settings.loop_restarts, settings.kubeconfig)
    check = ProcessCheck(settings.project)
    service.keeps("loops", LoopKeeper(resources=resources, check=check, states=lambda: trainer.states).work)
    service.at_stop(resources.close)


def _executor(settings: Settings, metrics: TrainerMetrics, publisher: Publisher) -> Executor:
    """Raises BadSetup."""

    def untracked(loop: str) -> None:
        metrics.untracked.labels(loop).inc()

    if settings.executor == "process":
        return ProcessExecutor(
            place=workplace_of(settings), timeout=settings.run_timeout, untracked=untracked, phase=metrics.in_phase
        )
    if settings.executor == "keda":
        notes = RunNotes(settings.packages)
        return OfferedRuns(
            publisher=publisher,
            notes=notes,
            claims=Claims(notes),
            deadline=settings.job_tries * (settings.run_timeout + settings.mlflow_patience),
            patience=settings.job_patience,
            untracked=untracked,
            phase=metrics.in_phase,
        )
    # Imported here: the client of Kubernetes is 40 MB and 2 s that only a cluster's dispatcher needs.
    from millstream_trainer.adapters.kubernetes_jobs import KubernetesJobs

    return KubernetesJobs.of(settings, untracked=untracked, phase=metrics.in_phase)


def rules_of(loop: Loop) -> Rules:
    """What the policy and the rollout need of a loop's file."""
    retrain, rollout = loop.retrain, loop.rollout
    return Rules(
        first_rows=loop.train.first_after.rows,
        schedule=loop.train.schedule,
        cooldown=retrain.cooldown,
        budget_runs=retrain.budget.runs,
        budget_period=retrain.budget.period,
        causes=frozenset(Cause(name) for name in retrain.on),
        agree=retrain.agree,
        within=retrain.within,
        grow=None if retrain.labels is None else retrain.labels.grow,
        grow_rows=None if retrain.labels is None else retrain.labels.rows,
        warm_up=retrain.warm_up,
        breaker=retrain.breaker,
        mature=0 if retrain.mature is None else retrain.mature.rows,
        mature_longest=0 if retrain.mature is None else retrain.mature.longest,
        quiet=retrain.rests(),
        mode=Mode(retrain.mode),
        expires=retrain.expires,
        rollout=RolloutRules(
            shadow=rollout.shadow,
            canary=rollout.canary,
            step=rollout.step,
            longest=rollout.longest,
            watch=rollout.watch,
            tolerance=rollout.tolerance,
        ),
    )
