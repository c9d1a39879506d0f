"""What the process tells of itself: logs, the metrics, and the trace context it passes on."""
