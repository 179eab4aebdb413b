"""The life of a process.

settings, worker_context (signals, reconnecting), heartbeat, watchdog, logs, metrics, metrics_server; children and
embedded_server for commands that run a whole pipeline.
"""
