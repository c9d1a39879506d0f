"""One S3-compatible object store: SeaweedFS, all its servers in one process.

Promises buckets and objects under a key pair made for this stack, on 127.0.0.1 alone, that survive
a restart. It reports nothing to anybody and opens no port but its own. What breaks it: calling it
ready when its port opens; the first write works only seconds later, so readiness is a write.
"""

from __future__ import annotations

import http.client
import json
import shutil
import sysconfig
import tempfile
from pathlib import Path
from typing import ClassVar

from service.errors import MissingDependency
from service.local.component import INSTALL_LINE, Component, ComponentProgress, OnProgress
from service.local.ports import GRPC_OFFSET, HOST
from service.local.process import Launch


class S3Component(Component):
    """The object store. `access_key` and `secret_key` are what clients sign with."""

    name: ClassVar[str] = "s3"
    port_uses: ClassVar[tuple[str, ...]] = ("s3", "master", "volume", "filer", "admin")

    def __init__(
        self, dir: Path, ports: dict[str, int], *, access_key: str, secret_key: str
    ) -> None:
        super().__init__(dir, ports)
        self._keys = {"accessKey": access_key, "secretKey": secret_key}

    @property
    def endpoint(self) -> str:
        return f"http://{HOST}:{self.port}"

    def check(self) -> None:
        _weed()

    def prepare(self, report: OnProgress) -> None:
        report(ComponentProgress(self.name, "preparing"))
        (self.dir / "data").mkdir(parents=True, exist_ok=True)
        identity = {"name": "fl", "credentials": [self._keys], "actions": ["Admin"]}
        config = self.dir / "identities.json"
        config.touch(mode=0o600)
        config.write_text(json.dumps({"identities": [identity]}))

    def launch(self) -> Launch:
        ports = []
        for use in self.port_uses:
            ports.append(f"-{use}.port={self.ports[use]}")
            ports.append(f"-{use}.port.grpc={self.ports[use] + GRPC_OFFSET}")
        return Launch(
            [
                str(_weed()),
                f"-logdir={self.dir}",
                "-logtostderr=true",
                "mini",
                # Relative: a comma in a path would be the end of it.
                "-dir=data",
                *(f"-ip={HOST}", f"-ip.bind={HOST}"),
                f"-s3.config={self.dir / 'identities.json'}",
                # Relative, so that these sockets lie in our folder and their names stay short.
                *("-s3.localSocket=s3.sock", "-filer.localSocket=filer.sock"),
                *("-webdav=false", "-admin.ui=false", "-master.telemetry=false"),
                *("-s3.port.iceberg=0", "-s3.port.lance=0"),
                *ports,
            ],
            cwd=self.dir,
            env={"GOGC": "50", "GOMEMLIMIT": "128MiB"},
        )

    def ready(self) -> bool:
        """Write and delete a small file, then see that the S3 side answers too."""
        name = "/readiness-probe/probe"
        written = _ask("PUT", self.ports["filer"], name, b"probe")
        if written not in (200, 201):
            return False
        _ask("DELETE", self.ports["filer"], "/readiness-probe?recursive=true")
        return _ask("GET", self.port, "/") in (200, 403)

    def clean(self) -> None:
        """Remove the sockets that it leaves behind: those of its own ports only."""
        for folder in {Path("/tmp"), Path(tempfile.gettempdir())}:
            for port in self.ports.values():
                for number in (port, port + GRPC_OFFSET):
                    for socket in folder.glob(f"seaweedfs-*-{number}.sock"):
                        socket.unlink(missing_ok=True)


def _weed() -> Path:
    """The program: beside our interpreter, where the package puts it, or on the path."""
    beside = Path(sysconfig.get_path("scripts")) / "weed"
    if beside.exists():
        return beside
    found = shutil.which("weed")
    if found is None:
        raise MissingDependency(f"the object store needs the extra 'local': {INSTALL_LINE}")
    return Path(found)


def _ask(method: str, port: int, path: str, body: bytes | None = None) -> int:
    """The status of one small request to ourselves, 0 when nothing answers."""
    link = http.client.HTTPConnection(HOST, port, timeout=3)
    try:
        link.request(method, path, body=body)
        return link.getresponse().status
    except (OSError, http.client.HTTPException):
        return 0
    finally:
        link.close()
