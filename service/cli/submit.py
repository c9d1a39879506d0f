"""`fl-jobs submit`: a training request, checked here first, published as a CloudEvent."""

from __future__ import annotations

import json
import sys
from dataclasses import replace
from pathlib import Path
from typing import Annotated, Any
from uuid import UUID, uuid4

import typer
import yaml

from service.cli.command import AsJson, EnvFile, pool_of, run_async, settings_of
from service.cli.follow import follow
from service.contracts.inbound import training
from service.contracts.wire.envelope import Envelope
from service.contracts.wire.problems import ContractViolation
from service.domain.commands import RejectRequest, RequestTraining
from service.domain.decide import decide
from service.domain.decision import Outcome
from service.domain.eligibility import describe_waiting_for
from service.domain.events import Queued, Rejected
from service.domain.facts import Facts
from service.domain.job import Job
from service.domain.values import Problem
from service.errors import Invalid, Transient
from service.kafka.publish import event_headers, publish
from service.kafka.topics import Topics
from service.settings import Settings
from service.store.database import reading
from service.store.jobs import get
from service.telemetry.terminal import line, out, print_json, say, styled


def submit(
    file: Annotated[str, typer.Argument(help="The request's data as YAML or JSON; - reads it.")],
    wait: Annotated[bool, typer.Option("--wait", help="Follow the job to its end.")] = False,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Say all that is wrong, and why it would wait.")
    ] = False,
    model_files: Annotated[
        Path | None, typer.Option("--model-files", help="Upload this folder as the model first.")
    ] = None,
    env_file: EnvFile = None,
    as_json: AsJson = False,
) -> None:
    """Ask for a training run.

    `job_id` and `model_id` are made up where the file gives none. With --wait the exit code is 0 when the
    job completed, else 1.

    \b
    fl-jobs submit request.yaml --model-files ./my-model --wait
    fl-jobs submit request.yaml --dry-run
    """
    settings = settings_of(env_file)
    if model_files is not None and not model_files.is_dir():
        raise Invalid(f"--model-files {model_files} is no folder")
    if model_files is not None and not any(path.is_file() for path in model_files.rglob("*")):
        raise Invalid(f"--model-files {model_files} holds no files")
    data = _read(file)
    data.setdefault("job_id", str(uuid4()))
    data.setdefault("model_id", str(uuid4()))
    command = _command(data)
    try:
        problems, waiting, words = run_async(_judge(settings, command))
    except Transient as exc:
        problems = list(command.errors) if isinstance(command, RejectRequest) else []
        if dry_run and not problems:
            raise
        # Whoever publishes needs the broker alone: the service judges again anyway.
        say(f"not checked against the registry: {exc.message}", error=True)
        waiting, words = None, ""
    if dry_run or problems:
        _tell(data, problems, waiting, words, as_json)
        raise typer.Exit(1 if problems else 0)
    run_async(_send(settings, data, model_files))
    job_id = UUID(str(data["job_id"]))
    if not wait:
        if as_json:
            print_json({"job_id": str(job_id), "waiting_for": waiting})
        else:
            say(str(job_id))
            say(f"`fl-jobs jobs watch {job_id}` shows how it goes", error=True)
        return
    if not as_json:
        say(f"job {job_id}", error=True)
    state = run_async(follow(settings, job_id, quiet=as_json))
    if as_json:
        print_json(state)
    raise typer.Exit(0 if state["state"] == "completed" else 1)


def _read(file: str) -> dict[str, Any]:
    try:
        text = sys.stdin.read() if file == "-" else Path(file).read_text("utf-8")
        data = yaml.safe_load(text)
    except OSError as exc:
        raise Invalid(f"{file} can't be read: {exc.strerror}") from exc
    except yaml.YAMLError as exc:
        raise Invalid(f"{file} is neither YAML nor JSON: {exc}") from exc
    if not isinstance(data, dict):
        raise Invalid(f"{file} must hold the request's fields, such as project_id and trust_ids")
    plain: dict[str, Any] = json.loads(json.dumps(data, default=str))
    return plain


def _command(data: dict[str, Any]) -> RequestTraining | RejectRequest:
    """What the service would make of the data; an unusable `job_id` hides nothing else here."""
    envelope = Envelope(id=str(uuid4()), source="/dry-run", type=training.REQUESTED, data=data)
    try:
        return training.to_command(training.request(data), envelope)
    except ContractViolation as bad:
        named = training.rejection(data, bad, envelope)
        made = named or training.rejection(data | {"job_id": str(uuid4())}, bad, envelope)
        assert made is not None
        return made


async def _judge(
    settings: Settings, command: RequestTraining | RejectRequest
) -> tuple[list[Problem], str | None, str]:
    """Everything that is wrong with the request, else what it would wait for: its code, and in words."""
    from service.app import fact_reader

    projects = [command.request.project_id] if isinstance(command, RequestTraining) else []
    async with pool_of(settings) as pool:
        reader = fact_reader(settings)
        async with reading(pool) as connection:
            job = await get(connection, command.job_id)
            facts = await reader.read(
                connection, projects=projects, new_jobs=[command.job_id], claimed=None
            )
    problems, waiting = verdict(job, command, facts)
    if isinstance(command, RejectRequest):
        return problems, waiting, ""
    return problems, waiting, describe_waiting_for(waiting, command.request, facts)


def verdict(
    job: Job | None, command: RequestTraining | RejectRequest, facts: Facts
) -> tuple[list[Problem], str | None]:
    """All errors of a request, those of its `job_id` and its content alike; else what it waits for."""
    problems: list[Problem] = []
    waiting = None
    known = decide(job, command, facts)
    if known.outcome is Outcome.REFUSED and known.reason is not None:
        why = known.reason
        problems += why.errors or [Problem(("job_id",), why.message, why.code)]
    for event in decide(None, command, replace(facts, retired={})).events:
        if isinstance(event, Rejected):
            problems += event.reason.errors
        elif isinstance(event, Queued):
            waiting = event.waiting_for
    return list(dict.fromkeys(problems)), None if problems else waiting


def _tell(
    data: dict[str, Any], problems: list[Problem], waiting: str | None, words: str, as_json: bool
) -> None:
    if as_json:
        print_json(
            {
                "job_id": data["job_id"],
                "valid": not problems,
                "errors": [{"loc": p.loc, "msg": p.msg, "type": p.type} for p in problems],
                "waiting_for": waiting,
            }
        )
        return
    console = out()
    for p in problems:
        place = ".".join(str(part) for part in p.loc) or "request"
        console.print(
            styled(("✗", "red"), " ", (place, "bold"), f": {p.msg} ", (f"({p.type})", "dim"))
        )
    if problems:
        console.print(f"{len(problems)} error(s); nothing was sent")
    else:
        console.print(styled(("✓", "green"), f" the request is valid; {line(words)}"))


async def _send(settings: Settings, data: dict[str, Any], model_files: Path | None) -> None:
    if model_files is not None:
        from service.app import make_bundles

        bundles = make_bundles(settings)
        await bundles.open()
        try:
            await bundles.upload_model_files(UUID(str(data["model_id"])), model_files)
        finally:
            await bundles.close()
    job_id = str(data["job_id"])
    await publish(
        settings.kafka,
        Topics(settings.kafka.topic_prefix).requests,
        job_id.encode(),
        json.dumps(data).encode(),
        event_headers(training.REQUESTED, job_id),
    )
