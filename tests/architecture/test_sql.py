"""SQL is a file: every named statement is one that the migrated database understands."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

from service.local.postgres import packaged
from service.store.statements import QUERIES
from tests.stack import RunningStack

SQL = Path(__file__).parents[2] / "schemas" / "sql"
_NUMBERED = re.compile(r"^(\d{4})_\w+\.sql$")


def test_every_statement_can_be_prepared(stack: RunningStack) -> None:
    database = stack.create_database(migrated=True)
    script = "\n".join(f"PREPARE {name} AS {text};" for name, text in sorted(QUERIES.items()))
    prepared = stack.psql(script + "\nSELECT count(*) FROM pg_prepared_statements", database)
    stack.drop_database(database)
    assert int(prepared.splitlines()[-1]) == len(QUERIES) > 50


def test_every_statement_has_a_user() -> None:
    code = "\n".join(
        path.read_text("utf-8")
        for path in (SQL.parents[1] / "service" / "store").glob("*.py")
        if path.name != "statements.py"
    )
    built = {
        f"{kind}_{what}" for kind in ("nets", "projects", "groups") for what in ("lock", "count")
    }
    unused = [n for n in QUERIES if f'"{n}"' not in code and n not in built]
    assert unused == []


def test_every_statement_says_what_it_is_for_and_names_its_parameters() -> None:
    for name, text in QUERIES.items():
        comment = "\n".join(line for line in text.splitlines() if line.startswith("--"))
        statement = "\n".join(line for line in text.splitlines() if not line.startswith("--"))
        assert comment, name
        assert not comment.startswith("-- $"), name
        used = set(re.findall(r"\$\d+", statement))
        assert set(re.findall(r"\$\d+", comment)) == used, name


def _catalog(stack: RunningStack, database: str) -> str:
    program = packaged() / "pginstall" / "bin" / "pg_dump"
    argv = [str(program), "--schema-only", "--no-owner", stack.dsn(database)]
    done = subprocess.run(argv, capture_output=True, text=True, check=False, cwd="/")
    assert done.returncode == 0, done.stderr
    # A random token guards psql's meta-commands; it differs from dump to dump.
    return re.sub(r"^\\(un)?restrict .*$", "", done.stdout, flags=re.MULTILINE)


def test_the_schema_is_all_migrations_applied(stack: RunningStack) -> None:
    migrated = stack.create_database(migrated=True)
    plain = stack.create_database()
    stack.psql((SQL / "schema.sql").read_text("utf-8"), plain)
    stack.psql("DROP TABLE migration", migrated)
    assert _catalog(stack, plain) == _catalog(stack, migrated)
    assert stack.psql("SELECT version, document FROM registry", plain) == stack.psql(
        "SELECT version, document FROM registry", migrated
    )
    stack.drop_database(migrated)
    stack.drop_database(plain)


def test_migrations_are_numbered_without_a_gap() -> None:
    numbers = sorted(
        int(match.group(1))
        for path in (SQL / "migrations").iterdir()
        if (match := _NUMBERED.match(path.name))
    )
    assert numbers == list(range(1, len(numbers) + 1))
