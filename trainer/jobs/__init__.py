"""Training as rq jobs: what is ordered, who does it, and what is told of it."""
