"""What tests are promised by their fixtures: settings of their own on shared servers."""

from __future__ import annotations

from tests.stack import RunningStack


def test_a_fresh_database_is_empty_and_a_migrated_one_has_the_schema(stack: RunningStack) -> None:
    tables = "SELECT count(*) FROM pg_tables WHERE schemaname = 'public'"
    empty, full = stack.create_database(), stack.create_database(migrated=True)
    assert stack.psql(tables, empty) == "0"
    assert int(stack.psql(tables, full)) > 5


def test_two_tests_share_neither_topics_nor_group_nor_database(stack: RunningStack) -> None:
    one, two = stack.settings_for(), stack.settings_for()
    for key in ("FL_KAFKA__TOPIC_PREFIX", "FL_KAFKA__GROUP_ID", "FL_DATABASE__DSN"):
        assert one[key] != two[key]
    assert one["FL_KAFKA__BOOTSTRAP_SERVERS"] == two["FL_KAFKA__BOOTSTRAP_SERVERS"]
