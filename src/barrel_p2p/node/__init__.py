"""The driver: runs the machines over net and disk and delivers to processes."""
