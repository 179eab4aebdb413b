"""Train a face detector: data sets with boxes in, a model folder with YuNet trained on out."""
