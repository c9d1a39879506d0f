"""What a running stack hands out: the file of settings and the demo's registry.

Promises every setting that the service needs to use this stack, one `KEY=value` a line, quoted where a
shell needs it, in a file that only its owner can read. A value that the environment already has (a topic
prefix, a bucket's name) takes precedence over the stack's own. A registry that somebody has changed is left
alone.
"""

from __future__ import annotations

import hashlib
import shlex
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Final
from urllib.parse import urlsplit

from service.local.demo_registry import registry_yaml
from service.local.ports import HOST
from service.local.postgres import dsn
from service.local.state import State, write_private

ADDRESS_OF: Final = {
    "kafka": "FL_KAFKA__BOOTSTRAP_SERVERS",
    "postgres": "FL_DATABASE__DSN",
    "s3": "FL_S3__ENDPOINT_URL",
}
_DEFAULTS: Final = {
    "FL_KAFKA__TOPIC_PREFIX": "",
    "FL_KAFKA__GROUP_ID": "fl-job-service",
    "FL_S3__REGION": "us-east-1",
    "FL_S3__MODEL_FILES_BUCKET": "model-files",
    "FL_S3__APP_BASE_BUCKET": "app-base",
    "FL_S3__APP_DESTINATION_BUCKET": "app-bundles",
    "FL_S3__RESULTS_BUCKET": "results",
    "FL_HTTP__HOST": HOST,
    "FL_HTTP__PORT": "0",
}
_KEYS: Final = ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY")


def endpoint_of(component: str, ports: Mapping[str, int]) -> str:
    """How clients name this component, in the form of its setting."""
    port = next(iter(ports.values()))
    if component == "kafka":
        return f"{HOST}:{port}"
    return dsn(port) if component == "postgres" else f"http://{HOST}:{port}"


def settings(
    dir: Path,
    components: Iterable[str],
    state: State,
    external: Mapping[str, str],
    environ: Mapping[str, str],
) -> dict[str, str]:
    """All settings of this stack, in the order in which the file lists them."""
    env = {}
    for component, key in ADDRESS_OF.items():
        if component in external:
            env[key] = external[component]
        elif component in components:
            env[key] = endpoint_of(component, state.ports[component])
    env |= {key: environ.get(key, value) for key, value in _DEFAULTS.items()}
    if "s3" in external:
        env |= {key: environ[key] for key in _KEYS if key in environ}
    elif "s3" in components:
        env |= dict(zip(_KEYS, (state.access_key, state.secret_key), strict=True))
    if "net" in components:
        env["FL_REGISTRY_FILE"] = str(dir / "registry.yaml")
    return env


def write(path: Path, env: Mapping[str, str]) -> None:
    """Write the file; untouched when it says the same already."""
    text = "".join(f"{key}={shlex.quote(value) if value else ''}\n" for key, value in env.items())
    if not path.exists() or path.read_text() != text:
        write_private(path, text)


def write_registry(state: State, dir: Path, endpoint: str, capacity: int) -> None:
    """Write the demo's registry unless somebody made it their own."""
    path = dir / "registry.yaml"
    text = registry_yaml(endpoint, capacity=capacity)
    if path.exists() and _digest(path.read_text()) != state.registry_sha256:
        return
    path.write_text(text)
    state.registry_sha256 = _digest(text)


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()


def without_password(address: str) -> str:
    """An address as it may be shown: user and password of a URL left out."""
    if "://" not in address:
        return address
    url = urlsplit(address)
    return url._replace(netloc=url.netloc.rpartition("@")[2]).geturl()
