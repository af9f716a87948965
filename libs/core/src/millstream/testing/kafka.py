"""A real Apache Kafka (KRaft, broker and controller in one JVM) on loopback; several brokers where a test needs them."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from millstream.testing.jars import Progress
from millstream.testing.jvm import ClassArchive, KafkaJvm
from millstream.testing.kafka_format import format_broker, format_with_users, is_formatted, new_id
from millstream.testing.kafka_guard import PROTOCOLS, Guard, GuardedPorts
from millstream.testing.kafka_probe import brokers_in_metadata
from millstream.testing.ports import HOST, claim
from millstream.testing.process import ManagedProcess, Usage

LOGGING_FILE = "log4j2.xml"

STARTED = "Kafka Server started"
"""The broker's own line, written once it is unfenced."""

READY_WITHIN_SECONDS = 60.0
"""0.8 to 2.3 s on two idle cores, 15 s for three brokers; the rest is for a busy machine."""

STOP_GRACE_SECONDS = 20.0
"""0.5 s, 2.5 s when it writes the class archive. The last brokers of several lose their controller quorum and never
finish a controlled shutdown: they are killed after this."""


def _single_node(brokers: int) -> dict[str, object]:
    """A lone broker that was killed may register again only when its old session has ended: 3 s instead of 9."""
    return {"broker.session.timeout.ms": 3000, "broker.heartbeat.interval.ms": 1000} if brokers == 1 else {}


_CENTURY = 100 * 365 * 24 * 3600 * 1000
_NEVER_FORGETS: dict[str, object] = {"log.initial.task.delay.ms": _CENTURY, "log.retention.check.interval.ms": _CENTURY}
"""Half a minute after its start and every five minutes Kafka removes records whose own time is older than their topic's
retention. Those of tests are of 2013: one run in many had its records taken between two lines of a test."""


_LOGGING = (
    '<Configuration status="ERROR"><Appenders><Console name="C" target="SYSTEM_ERR">'
    '<PatternLayout pattern="[%d] %p %m (%c)%n"/></Console></Appenders>'
    "<Loggers>"
    # Each start prints every setting four times, 2,500 lines; they stand in broker-0.properties.
    '<Logger name="kafka.server.KafkaConfig" level="WARN"/><Logger name="org.apache.kafka.common.config" level="WARN"/>'
    '<Logger name="org.apache.kafka.server.config" level="WARN"/>'
    '<Root level="INFO"><AppenderRef ref="C"/></Root></Loggers></Configuration>\n'
)


@dataclass(frozen=True, kw_only=True)
class BrokerPorts:
    """Where one broker listens; None means any free port."""

    clients: int | None = None
    controller: int | None = None


class EmbeddedKafka:
    """`brokers` JVMs with their data under `data_dir`. Data and ports survive stop, kill9 and start.

    Methods with `broker` act on that one (0 is the first), or on all when it is None.
    """

    def __init__(
        self,
        data_dir: Path,
        ports: Sequence[BrokerPorts] | None = None,
        heap: str = "512m",
        brokers: int = 1,
        *,
        guard: Guard | None = None,
        forgets: bool = False,
        log_dir: Path | None = None,
        progress: Progress = lambda _: None,
    ) -> None:
        """Nothing is started or fetched yet. `heap` is the JVM's -Xmx; logs go to `log_dir`, else to `data_dir`. With a `guard`
        there are further ports at which it stands (`guarded`). `forgets`: it heeds topics' retention, as in production."""
        self._data = data_dir.absolute()
        self._wanted = list(ports) if ports is not None else [BrokerPorts()] * brokers
        if len(self._wanted) != brokers:
            raise ValueError(f"{brokers} brokers need as many pairs of ports, got {len(self._wanted)}")
        self._heap = heap
        self._logs = (log_dir or self._data).absolute()
        self._progress = progress
        self._guard = guard
        self._forgets = forgets
        self.guarded: list[GuardedPorts] = []
        """Of each broker, from the first start on; without a guard none."""
        self._ports: list[tuple[int, int]] = []
        self._brokers: list[ManagedProcess] = []
        self._jvm: KafkaJvm | None = None
        self._archive: ClassArchive | None = None

    @property
    def bootstrap(self) -> str:
        """`host:port` of every broker, as clients want it. Known from the first start on."""
        return ",".join(f"{HOST}:{clients}" for clients, _ in self._ports)

    @property
    def processes(self) -> list[ManagedProcess]:
        """One for each broker, from the first start on."""
        return list(self._brokers)

    def start(self, broker: int | None = None) -> None:
        """Start what does not run, and wait until it serves. Raises PortTaken, ToolMissing, ServerDidNotStart."""
        if not self._brokers:
            self._prepare()
        starting = [process for process in self._chosen(broker) if not process.alive()]
        try:
            for process in starting:
                process.args = self._command(self._brokers.index(process))
                process.launch()
            for process in starting:
                process.wait_ready()
        except BaseException:
            for process in starting:
                process.kill9()
            raise

    def stop(self, broker: int | None = None) -> None:
        """Orderly end. Twice is safe."""
        stopping = [process for process in self._chosen(broker) if process.alive()]
        for process in stopping[1:]:  # all at once: see STOP_GRACE_SECONDS
            process.cont_signal()
            process.ask_to_end()
        for process in stopping:
            process.terminate(STOP_GRACE_SECONDS)
        if self._archive is not None and self._brokers[0] in stopping:
            # A JVM that handled SIGTERM ends with 143; one that was killed on the way has half an archive.
            self._archive.keep(orderly=self._brokers[0].returncode == 143)

    def kill9(self, broker: int | None = None) -> None:
        """The plug is pulled (SIGKILL). What was acknowledged is still there after `start`."""
        for process in self._chosen(broker):
            process.kill9()

    def restart(self, broker: int | None = None) -> None:
        """Stop and start, same data, same ports."""
        self.stop(broker)
        self.start(broker)

    def pause(self, broker: int | None = None) -> None:
        """Freeze (SIGSTOP): connections stay open, nothing answers."""
        for process in self._chosen(broker):
            process.stop_signal()

    def resume(self, broker: int | None = None) -> None:
        """Undo `pause`."""
        for process in self._chosen(broker):
            process.cont_signal()

    @contextmanager
    def running(self) -> Iterator["EmbeddedKafka"]:
        """Started inside, stopped after."""
        self.start()
        try:
            yield self
        finally:
            self.stop()

    def usage(self) -> list[Usage | None]:
        """Memory and CPU of each broker."""
        return [process.usage() for process in self._brokers]

    def _chosen(self, broker: int | None) -> list[ManagedProcess]:
        return self._brokers if broker is None else [self._brokers[broker]]

    def _prepare(self) -> None:
        self._jvm = jvm = KafkaJvm.find(self._progress)
        self._ports = [
            (claim(wanted.clients, "Kafka's port"), claim(wanted.controller, "Kafka's controller port"))
            for wanted in self._wanted
        ]
        self.guarded = [GuardedPorts(self._guard) for _ in self._wanted] if self._guard is not None else []
        self._data.mkdir(parents=True, exist_ok=True)
        logging = self._data / LOGGING_FILE
        logging.write_text(_LOGGING)
        cluster = self._cluster_id()
        self._archive = jvm.archive()
        for index in range(len(self._wanted)):
            folder = self._data / f"broker-{index}"
            config = self._data / f"broker-{index}.properties"
            config.write_text(self._properties(index, folder))
            if not is_formatted(folder):
                if self.guarded:
                    format_with_users(
                        config, self.guarded[index].format_arguments, cluster, jvm=jvm, log_config=logging
                    )
                else:
                    format_broker(folder, node=index, cluster=cluster, jvm=jvm, log_config=logging)
            self._brokers.append(self._process(index))

    def _command(self, index: int) -> list[str | Path]:
        """Anew for each start: the class archive may be there by now."""
        assert self._jvm is not None
        assert self._archive is not None
        # One writer of the archive is enough: it costs its broker 2 s at the end.
        flags = self._archive.flags(new_id()) if index == 0 or self._archive.file.exists() else ()
        flags = ("-Xms64m", f"-Xmx{self._heap}", *flags)
        config = self._data / f"broker-{index}.properties"
        return [*self._jvm.command("kafka.Kafka", config, log_config=self._data / LOGGING_FILE, flags=flags)]

    def _process(self, index: int) -> ManagedProcess:
        process = ManagedProcess(
            "kafka" if len(self._wanted) == 1 else f"kafka-{index}",
            [],
            log=self._logs / (f"kafka-{index}.log" if len(self._wanted) > 1 else "kafka.log"),
            ready=lambda: STARTED in process.log_text() and brokers_in_metadata(self._ports[index][0]) > 0,
            ready_within=READY_WITHIN_SECONDS,
        )
        return process

    def _cluster_id(self) -> str:
        file = self._data / "cluster.id"
        if not file.exists():
            file.write_text(new_id())
        return file.read_text()

    def _properties(self, index: int, folder: Path) -> str:
        clients, controller = self._ports[index]
        copies = min(3, len(self._wanted))
        guarded = self.guarded[index] if self.guarded else None
        more, protocols = (f",{guarded.listeners}", f",{PROTOCOLS}") if guarded else ("", "")
        voters = ",".join(f"{node}@{HOST}:{port}" for node, (_, port) in enumerate(self._ports))
        settings = {
            "process.roles": "broker,controller",
            "node.id": index,
            "controller.quorum.voters": voters,
            "controller.listener.names": "CONTROLLER",
            "listeners": f"PLAINTEXT://{HOST}:{clients}{more},CONTROLLER://{HOST}:{controller}",
            "advertised.listeners": f"PLAINTEXT://{HOST}:{clients}{more}",
            "listener.security.protocol.map": f"PLAINTEXT:PLAINTEXT,CONTROLLER:PLAINTEXT{protocols}",
            **(guarded.settings(self._data) if guarded else {}),
            "inter.broker.listener.name": "PLAINTEXT",
            "log.dirs": folder,
            "auto.create.topics.enable": "false",
            "default.replication.factor": copies,
            "min.insync.replicas": max(1, copies - 1),
            **_single_node(len(self._wanted)),
            **({} if self._forgets else _NEVER_FORGETS),
            # A consumer that joins alone should not wait 3 s for others.
            "group.initial.rebalance.delay.ms": 0,
            # Each partition of an internal topic is two files and an index, opened at every start; the default is 50.
            "offsets.topic.num.partitions": 4,
            "offsets.topic.replication.factor": copies,
            "transaction.state.log.num.partitions": 2,
            "transaction.state.log.replication.factor": copies,
            "transaction.state.log.min.isr": max(1, copies - 1),
            "share.coordinator.state.topic.num.partitions": 2,
            "share.coordinator.state.topic.replication.factor": copies,
            "share.coordinator.state.topic.min.isr": max(1, copies - 1),
        }
        return "".join(f"{key}={value}\n" for key, value in settings.items())
