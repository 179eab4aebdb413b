"""What every process shares: bus (Redis), runtime (the life of a process) and vision (images, tracks, drawing)."""
