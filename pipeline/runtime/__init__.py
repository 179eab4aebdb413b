"""The life of a process: settings, signals, heartbeat, logs, metrics and child processes."""
