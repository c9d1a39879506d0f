"""One embedded FL net: our own FL-API server as a child process.

Promises a net of three sites that answers the FL-API on 127.0.0.1 and reports to the stack's
broker. It is another program: nothing but its command line and HTTP ties it to the service.
"""

from __future__ import annotations

import http.client
from pathlib import Path
from typing import ClassVar, Final

import service
from service.local.component import Component, ComponentProgress, OnProgress, require
from service.local.ports import HOST
from service.local.process import Launch, python

NET: Final = "net-1"
SLOTS: Final = ("Trust_1", "Trust_2", "Trust_3")


class NetComponent(Component):
    """The FL-API server. `data_root` is the folder with one folder of data per site."""

    name: ClassVar[str] = "net"
    port_uses: ClassVar[tuple[str, ...]] = ("http",)

    def __init__(
        self,
        dir: Path,
        ports: dict[str, int],
        *,
        bootstrap: str,
        topic_prefix: str,
        data_root: Path,
        capacity: int = 1,
        bundle_origin: str = "",
    ) -> None:
        super().__init__(dir, ports)
        self._bootstrap = bootstrap
        self._prefix = topic_prefix
        self._data_root = data_root
        self._capacity = capacity
        self._bundle_origin = bundle_origin

    @property
    def endpoint(self) -> str:
        return f"http://{HOST}:{self.port}"

    def check(self) -> None:
        require("numpy", "the embedded net")

    def prepare(self, report: OnProgress) -> None:
        report(ComponentProgress(self.name, "preparing"))
        self.dir.mkdir(parents=True, exist_ok=True)
        self._data_root.mkdir(parents=True, exist_ok=True)

    def launch(self) -> Launch:
        # An object store on this machine needs no permission, one elsewhere does.
        origin = ("--bundle-origin", self._bundle_origin) if self._bundle_origin else ()
        return Launch(
            [
                *(python(), "-m", "service", "fl-server", "embedded"),
                *("--host", HOST, "--port", str(self.port)),
                *("--dir", str(self.dir), "--name", NET, "--slots", ",".join(SLOTS)),
                *("--data-root", str(self._data_root)),
                *("--kafka", self._bootstrap, "--topic-prefix", self._prefix),
                *("--capacity", str(self._capacity)),
                *origin,
            ],
            cwd=self.dir,
            # Started from a checkout, the package is found by the folder that it lies in.
            env={"PYTHONPATH": str(Path(service.__file__).parents[1])},
        )

    def ready(self) -> bool:
        link = http.client.HTTPConnection(HOST, self.port, timeout=2)
        try:
            link.request("GET", "/health")
            return link.getresponse().status == 200
        except (OSError, http.client.HTTPException):
            return False
        finally:
            link.close()
