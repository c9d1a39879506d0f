"""The embedded backend's layout: the template at the root, the researcher's files in `app/`.

The merged config replaces the researcher's own as `app/config.json`, where the engine's
trainer reads it.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from service.bundles.layout import FileOrigin, Placed, as_json
from service.domain.enums import ReasonCode
from service.domain.run_settings import LOCAL_ROUNDS, rounds_problem
from service.domain.values import JsonObject
from service.errors import Permanent

_APP: Final = "app/"
_CONFIG: Final = "config.json"
_ENGINE: Final = "engine.json"


class EmbeddedLayout:
    """See the module."""

    def arrange(
        self,
        *,
        job_type: str,
        template: Sequence[str],
        files: Sequence[str],
        config: JsonObject,
    ) -> list[Placed]:
        """Raises errors.Permanent (`unknown_job_type`) for a template without `engine.json`."""
        if _ENGINE not in template:
            raise Permanent(
                f"the base template of job type {job_type!r} has no {_ENGINE} at its root",
                code=ReasonCode.UNKNOWN_JOB_TYPE,
            )
        placed = [Placed(path, FileOrigin.TEMPLATE, path) for path in template]
        placed += [Placed(_APP + path, FileOrigin.MODEL, path) for path in files if path != _CONFIG]
        placed.append(Placed(_APP + _CONFIG, FileOrigin.MADE, _CONFIG, as_json(config)))
        return placed

    def refused(self, config: JsonObject) -> list[str]:
        """The engine reads every setting of `IOverridableConfig` itself."""
        ignore = config.get("IGNORE_RESULT_ERROR")
        rounds = rounds_problem(config, LOCAL_ROUNDS)
        problems = [] if rounds is None else [rounds]
        if ignore is not None and not isinstance(ignore, bool):
            problems.append("IGNORE_RESULT_ERROR must be true or false")
        return problems
