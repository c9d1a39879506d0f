"""Every metric of the service, by name, in one place.

Promise: a name that is not here is not exported, and no label holds a job, a project or anything else
that grows without bound (nets and steps are few). Counters that a part keeps for itself, as plain numbers
in its status, are read at scrape time (`follow`), so that counting costs the part nothing.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Final

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest
from prometheus_client.metrics_core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

CONTENT_TYPE: Final = "text/plain; version=0.0.4; charset=utf-8"

_FAST: Final = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)
_SLOW: Final = (0.01, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 15.0, 60.0, 300.0, 900.0)


@dataclass(frozen=True, slots=True)
class StatusMetric:
    """One number of a part's status: its metric's name, kind (counter or gauge), help and reading."""

    name: str
    kind: str
    about: str
    read: Callable[[Any], float]


@dataclass(frozen=True, slots=True)
class ExportedMetric:
    """A metric as `/metrics` tells it: its name there, kind, labels and help."""

    name: str
    kind: str
    labels: tuple[str, ...]
    about: str


def _attribute(name: str) -> Callable[[Any], float]:
    return lambda status: float(getattr(status, name))


def _since(name: str) -> Callable[[Any], float]:
    return lambda status: max(0.0, time.monotonic() - float(getattr(status, name)))


#: What is read from `ingest.status.IngestStatus`.
INGEST: Final = (
    StatusMetric("fl_ingest_records", "counter", "Records stored.", _attribute("records")),
    StatusMetric("fl_ingest_batches", "counter", "Transactions of records.", _attribute("batches")),
    StatusMetric(
        "fl_ingest_dead_letters",
        "counter",
        "Records dead-lettered as they came.",
        _attribute("dead_letters"),
    ),
    StatusMetric(
        "fl_ingest_isolated", "counter", "Records taken out of a batch.", _attribute("isolated")
    ),
    StatusMetric(
        "fl_ingest_unreadable_batches",
        "counter",
        "Batches whose bytes hold no records that can be read.",
        _attribute("unreadable"),
    ),
    StatusMetric(
        "fl_ingest_stuck_partitions",
        "gauge",
        "Partitions that can't be read on.",
        lambda status: float(len(status.stuck)),
    ),
    StatusMetric(
        "fl_ingest_fenced", "counter", "Batches of a former owner, dropped.", _attribute("fenced")
    ),
    StatusMetric("fl_ingest_errors", "counter", "Errors of the consumer.", _attribute("errors")),
    StatusMetric("fl_ingest_rebalances", "counter", "Assignments taken.", _attribute("rebalances")),
    StatusMetric("fl_ingest_paused", "gauge", "1 while the store is behind.", _attribute("paused")),
    StatusMetric("fl_ingest_joined", "gauge", "1 when partitions are held.", _attribute("joined")),
    StatusMetric(
        "fl_ingest_beat_age_seconds",
        "gauge",
        "Since the poll loop's last turn.",
        _since("heartbeat"),
    ),
)
#: What is read from `relay.status.RelayStatus`.
RELAY: Final = (
    StatusMetric(
        "fl_relay_events", "counter", "Lifecycle events published.", _attribute("published")
    ),
    StatusMetric(
        "fl_relay_transactions", "counter", "Kafka transactions.", _attribute("transactions")
    ),
    StatusMetric("fl_relay_takeovers", "counter", "Leaderships taken.", _attribute("takeovers")),
    StatusMetric("fl_relay_errors", "counter", "Errors while publishing.", _attribute("errors")),
    StatusMetric(
        "fl_relay_foreign_records",
        "counter",
        "Records on our topics that we did not write.",
        _attribute("unknown_records"),
    ),
    StatusMetric(
        "fl_relay_leading", "gauge", "1 in the process that publishes.", _attribute("leading")
    ),
    StatusMetric(
        "fl_relay_beat_age_seconds", "gauge", "Since the loop's last turn.", _since("heartbeat")
    ),
    StatusMetric(
        "fl_relay_hanging_transactions",
        "gauge",
        "Partitions held back by an open transaction.",
        lambda status: float(len(status.hanging)),
    ),
    StatusMetric(
        "fl_relay_hanging_seconds",
        "gauge",
        "The oldest such transaction's age.",
        lambda status: max((each.seconds() for each in status.hanging.values()), default=0.0),
    ),
    StatusMetric(
        "fl_relay_net_status_sent", "counter", "Net states sent.", _attribute("net_status_sent")
    ),
    StatusMetric(
        "fl_relay_tombstones_sent", "counter", "Tombstones sent.", _attribute("tombstones_sent")
    ),
    StatusMetric(
        "fl_relay_dead_letters_sent",
        "counter",
        "Dead letters sent.",
        _attribute("dead_letters_sent"),
    ),
    StatusMetric(
        "fl_relay_second_lane_errors",
        "counter",
        "Errors of the side publisher.",
        _attribute("side_publisher_errors"),
    ),
)


class _StatusCollector(Collector):
    """Reads parts' own counts when somebody scrapes."""

    def __init__(self) -> None:
        self._parts: dict[str, tuple[Callable[[], Any], tuple[StatusMetric, ...]]] = {}

    def add(
        self, part: str, status: Callable[[], Any], status_metrics: Iterable[StatusMetric]
    ) -> None:
        self._parts[part] = (status, tuple(status_metrics))

    def collect(self) -> Iterator[Metric]:
        for current, status_metrics in self._parts.values():
            status = current()
            if status is None:
                continue
            for each in status_metrics:
                kind = CounterMetricFamily if each.kind == "counter" else GaugeMetricFamily
                yield kind(each.name, each.about, value=each.read(status))


class Metrics:
    """The process's metrics, in a registry of their own, so that two services in one process don't mix."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        self._status_collector = _StatusCollector()
        self.registry.register(self._status_collector)
        self._declared: list[ExportedMetric] = []
        r = self.registry

        def counter(name: str, about: str, *labels: str) -> Counter:
            self._declared.append(ExportedMetric(f"{name}_total", "counter", labels, about))
            return Counter(name, about, labels, registry=r)

        def gauge(name: str, about: str, *labels: str) -> Gauge:
            self._declared.append(ExportedMetric(name, "gauge", labels, about))
            return Gauge(name, about, labels, registry=r)

        def histogram(
            name: str, about: str, *labels: str, buckets: tuple[float, ...] = _FAST
        ) -> Histogram:
            self._declared.append(ExportedMetric(name, "histogram", labels, about))
            return Histogram(name, about, labels, registry=r, buckets=buckets)

        # --- the one write path
        self.decisions = counter("fl_decisions", "Commands decided.", "outcome")
        self.events = counter("fl_events", "Events written.", "type")
        self.deadlocks = counter("fl_deadlocks", "Transactions repeated after a deadlock.")
        self.serialization_retries = counter(
            "fl_transaction_retries", "Transactions repeated for another reason.", "reason"
        )
        # --- the work
        self.steps = counter("fl_steps", "Turns of the steps.", "step", "outcome")
        self.step_seconds = histogram("fl_step_seconds", "Time of a turn.", "step", buckets=_SLOW)
        # --- nets
        self.net_calls = counter("fl_net_calls", "Calls to adapters.", "net", "call", "outcome")
        self.net_call_seconds = histogram(
            "fl_net_call_seconds", "Time of a call to an adapter.", "net", "call", buckets=_SLOW
        )
        self.net_answering = gauge("fl_net_answering", "1 when the adapter answers.", "net")
        self.net_online = gauge("fl_net_clients_online", "Member trusts online.", "net")
        self.net_occupied = gauge("fl_net_slots_occupied", "Reservations held on the net.", "net")
        self.net_capacity = gauge("fl_net_capacity", "Runs that the net takes at once.", "net")
        self.net_strays = gauge("fl_net_strays", "Runs that nobody here submitted.", "net")
        self.net_unknown_statuses = gauge(
            "fl_net_unknown_statuses", "Status words in the net's list that nobody knows.", "net"
        )
        self.net_in_doubt = gauge("fl_net_in_doubt", "1 while a submission is in doubt.", "net")
        self.quarantined = gauge(
            "fl_slots_quarantined", "Reservations kept for runs without proof of end."
        )
        # --- what is where
        self.jobs = gauge("fl_jobs", "Unfinished jobs by state.", "state")
        self.parked = gauge("fl_parked_records", "Stops and reports waiting for their job.")
        self.unsent_dead_letters = gauge("fl_dead_letters_unsent", "Dead letters to be published.")
        self.outbox_lag = gauge("fl_outbox_lag_events", "Events written and not yet published.")
        self.oldest_queued_seconds = gauge(
            "fl_oldest_queued_seconds", "Age of the oldest queued job."
        )

    def exported(self) -> tuple[ExportedMetric, ...]:
        """Every metric that a process with all roles exports."""
        own = (
            ExportedMetric(
                f"{each.name}_total" if each.kind == "counter" else each.name,
                each.kind,
                (),
                each.about,
            )
            for each in (*INGEST, *RELAY)
        )
        return (*self._declared, *own)

    def follow(
        self, part: str, status: Callable[[], Any], status_metrics: Iterable[StatusMetric]
    ) -> None:
        """Export a part's own counts (`INGEST`, `RELAY`); `status` may answer None meanwhile."""
        self._status_collector.add(part, status, status_metrics)

    def committed(self, outcomes: Mapping[str, int], words: Mapping[str, int]) -> None:
        """A transaction was committed: its decisions by outcome, its published events by word."""
        for outcome, number in outcomes.items():
            self.decisions.labels(outcome).inc(number)
        for word, number in words.items():
            self.events.labels(word).inc(number)

    def on_step(self, step: str, outcome: str, seconds: float) -> None:
        """One turn of a step ended: ok, transient or error."""
        self.steps.labels(step, outcome).inc()
        self.step_seconds.labels(step).observe(seconds)

    def on_call(self, net: str, call: str, outcome: str, seconds: float) -> None:
        """One call to a net's adapter ended."""
        self.net_calls.labels(net, call, outcome).inc()
        self.net_call_seconds.labels(net, call).observe(seconds)

    def take_counts(self, counts: Mapping[str, Any]) -> None:
        """Set the gauges from `store.queries.Queries.counts`."""
        self.jobs.clear()
        for state, number in counts["jobs"].items():
            self.jobs.labels(state).set(number)
        self.parked.set(counts["parked"])
        self.unsent_dead_letters.set(counts["dead_letters_unsent"])
        self.outbox_lag.set(counts["outbox_lag"])
        self.quarantined.set(counts["quarantined"])
        self.oldest_queued_seconds.set(counts["oldest_queued_seconds"])
        gauges = {
            "answering": self.net_answering,
            "online": self.net_online,
            "occupied": self.net_occupied,
            "capacity": self.net_capacity,
            "strays": self.net_strays,
            "unknown_statuses": self.net_unknown_statuses,
            "in_doubt": self.net_in_doubt,
        }
        for name, each in gauges.items():
            each.clear()
            for net, numbers in counts["nets"].items():
                each.labels(net).set(numbers[name])

    def text(self) -> bytes:
        """The exposition, in Prometheus' text format."""
        return generate_latest(self.registry)
