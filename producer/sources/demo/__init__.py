"""The demo scene: people with and without masks, drawn from one photograph."""
