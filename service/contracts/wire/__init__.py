"""What both directions are made of: envelope, JSON, field types, problems, validation, partitions."""
