"""What an uploaded app asks for: `engine.json`, the merged config, the trainer's source.

Promise: an app that passes here can be started; every other one is refused with all that is wrong
in one message, before any process runs. Of the config the engine reads `IOverridableConfig` alone;
every other key is the app's own and passes untouched. The limits are those of
`service.domain.run_settings`.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import Any, Final

from service.contracts.fl import IOverridableConfig
from service.contracts.wire import strict_json
from service.domain.enums import FLAggregators
from service.domain.run_settings import (
    AGGREGATION_WEIGHTS,
    AGGREGATOR,
    AGGREGATORS,
    DEFAULT_WEIGHT,
    GLOBAL_ROUNDS,
    LOCAL_ROUNDS,
    MAX_WEIGHT,
    MIN_WEIGHT,
    is_aggregator,
    is_weight,
    rounds_problem,
)
from service.fl_server.embedded.source import UTF8_BOM, other_encoding, source_problem
from service.fl_server.http_errors import BadApp

ENGINE_FILE: Final = "engine.json"
FORMAT: Final = 1
_MAX_JSON: Final = 16 * 2**20


@dataclass(frozen=True, slots=True)
class Plan:
    """How a run goes: `rounds` global rounds over the app's trainer with `config`.

    `weights` are by slot, 1.0 for a slot that is not named.
    """

    app: Path
    entrypoint: str
    config: Mapping[str, Any]
    rounds: int = 1
    aggregator: FLAggregators = FLAggregators.InTimeAccumulateWeightedAggregator
    ignore_result_error: bool = False
    weights: Mapping[str, float] = field(default_factory=dict)

    def weight(self, slot: str) -> float:
        """A slot's aggregation weight."""
        return self.weights.get(slot, DEFAULT_WEIGHT)


def read_plan(app: Path, slots: Collection[str]) -> Plan:
    """The plan of the app in the folder `app` for a net with these slots.

    Raises:
        BadApp: a file is missing or malformed, or a setting is out of its limits.
    """
    engine = _json_object(app, ENGINE_FILE)
    if engine.get("format") != FORMAT:
        raise BadApp(f"{ENGINE_FILE}: format should be {FORMAT}")
    entrypoint = _file_of(engine, "entrypoint")
    config = _json_object(app, _file_of(engine, "config"))
    problems = list(_problems(config, slots))
    problem = source_problem(app, entrypoint)
    if problem is not None:
        problems.append(problem)
    if problems:
        raise BadApp("; ".join(problems))
    ours = {name: config[name] for name in IOverridableConfig.model_fields if _given(config, name)}
    return Plan(
        app=app,
        entrypoint=entrypoint,
        config=config,
        rounds=ours.get(GLOBAL_ROUNDS, 1),
        aggregator=FLAggregators(
            ours.get("AGGREGATOR", FLAggregators.InTimeAccumulateWeightedAggregator)
        ),
        ignore_result_error=ours.get("IGNORE_RESULT_ERROR", False),
        weights={slot: float(w) for slot, w in ours.get(AGGREGATION_WEIGHTS, {}).items()},
    )


def _given(config: Mapping[str, Any], name: str) -> bool:
    return config.get(name) is not None


def _file_of(engine: Mapping[str, Any], name: str) -> str:
    value = engine.get(name)
    if not isinstance(value, str) or not value or value.startswith("/"):
        raise BadApp(f"{ENGINE_FILE}: {name} should be the relative path of a file")
    if any(part in ("", ".", "..") for part in PurePosixPath(value).parts):
        raise BadApp(f"{ENGINE_FILE}: {name} should be a path inside the bundle")
    return value


def _json_object(app: Path, name: str) -> dict[str, Any]:
    try:
        path = app / name
        if path.stat().st_size > _MAX_JSON:
            raise BadApp(f"{name} is larger than {_MAX_JSON} bytes")
        raw = path.read_bytes()
        encoding = other_encoding(raw)
        if encoding is not None:
            raise BadApp(f"{name} is saved as {encoding}: save it as UTF-8")
        content = strict_json.parse(raw.removeprefix(UTF8_BOM))
    except FileNotFoundError as exc:
        raise BadApp(f"the bundle has no {name}") from exc
    except OSError as exc:
        raise BadApp(f"{name} can't be read: {exc.strerror}") from exc
    except ValueError as exc:
        raise BadApp(f"{name} can't be read: {exc}") from exc
    if not isinstance(content, dict):
        raise BadApp(f"{name} should hold a JSON object")
    return content


def _problems(config: Mapping[str, Any], slots: Collection[str]) -> Iterator[str]:
    for name in (GLOBAL_ROUNDS, LOCAL_ROUNDS):
        if (rounds := rounds_problem(config, name)) is not None:
            yield rounds
    ignore = config.get("IGNORE_RESULT_ERROR")
    if ignore is not None and not isinstance(ignore, bool):
        yield "IGNORE_RESULT_ERROR should be true or false"
    if _given(config, AGGREGATOR) and not is_aggregator(config[AGGREGATOR]):
        given = str(config[AGGREGATOR])[:80]
        yield f"Unknown aggregator: {given}; it should be {' or '.join(AGGREGATORS)}"
    weights = config.get(AGGREGATION_WEIGHTS)
    if weights is not None and not isinstance(weights, dict):
        yield "AGGREGATION_WEIGHTS must be a dictionary"
    elif weights:
        for slot, weight in weights.items():
            if slot not in slots:
                yield (
                    f"AGGREGATION_WEIGHTS names {slot[:80]!r}, which is no slot of this net"
                    f" ({', '.join(slots)})"
                )
            if not is_weight(weight):
                limits = f"{MIN_WEIGHT}..{MAX_WEIGHT}"
                yield f"Invalid weight: {str(weight)[:40]} for {slot[:80]!r}; it should be {limits}"
