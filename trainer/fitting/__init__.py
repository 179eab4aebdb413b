"""What a run needs besides its network: averaging, checkpoints, repeatability, a locked folder."""
