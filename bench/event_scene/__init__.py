"""A scene whose events are known, fed to recorders that are killed: `python -m bench.event_scene --help`."""
