"""The catalogue of topics and event types, and the schema files generated from it."""
