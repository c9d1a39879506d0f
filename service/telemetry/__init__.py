"""What the process reports about itself: logs, the metrics, and the trace context it passes on."""
