"""An embedded net put together: runtime, apps, idempotency store, reporter, routes."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path

from service.errors import Invalid
from service.fl_server.apps import Apps
from service.fl_server.downloads import Downloads
from service.fl_server.embedded.runtime import EmbeddedRuntime
from service.fl_server.idempotency_store import IdempotencyStore
from service.fl_server.report_outbox import ReportOutbox
from service.fl_server.reporter import Reporter
from service.fl_server.server import Server
from service.kafka.connection import Connection

_UNSAFE = frozenset("/\\\0")


def embedded_net(
    folder: Path,
    slots: Sequence[str],
    data_root: Path,
    *,
    name: str = "net-1",
    capacity: int = 1,
    call_seconds: float | None = None,
    connection: Connection | None = None,
    bundle_origins: Iterable[str] = (),
) -> Server:
    """The server of one embedded net with its state in `folder`. Reports go out when there is a
    broker's `connection`.

    Raises:
        Invalid: slots that are empty, doubled or no file names; a folder in use; an unusable origin.
    """
    if not slots or len(set(slots)) < len(slots):
        raise Invalid("slots should be names, at least one, each once")
    for slot in slots:
        if not slot or slot.startswith(".") or _UNSAFE & set(slot) or not slot.isprintable():
            raise Invalid(f"slot {slot!r} should be usable as a folder's name")
    downloads = Downloads(bundle_origins)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        folder = folder.resolve()
        reporter = None
        if connection is not None:
            outbox = ReportOutbox(folder / "reports.db")
            reporter = Reporter(outbox, connection, source=f"/fl-api/{name}")
        runtime = EmbeddedRuntime(
            folder,
            slots,
            data_root.resolve(),
            capacity=capacity,
            call_seconds=call_seconds,
            reporter=reporter,
        )
        apps = Apps(folder / "apps", downloads)
        return Server(runtime, apps, IdempotencyStore(folder / "book.db"), name=name)
    except OSError as exc:
        raise Invalid(f"{folder} can't be used: {exc.strerror}") from exc
