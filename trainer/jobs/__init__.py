"""Training as rq jobs: job specs, the trainers that do them, and their progress and results."""
