"""The face detector: an image in, boxes and scores out."""
