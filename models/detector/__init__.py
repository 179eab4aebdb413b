"""Find faces: an image in, boxes and scores out."""
