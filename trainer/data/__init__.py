"""Data sets: files in; labelled faces, copies, splits and augmented crops out."""
