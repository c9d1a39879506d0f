"""STATE: everything durable, in Postgres, and the only room that speaks SQL.

`apply` is the one write path. `PostgresStore` is its door for the steps and the consumer, `outbox` the
relay's, `queries` what people and programs read.
"""
