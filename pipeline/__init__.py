"""What every process shares: the wire, the streams, pixels, settings, the life of a process, tracks and drawing."""
