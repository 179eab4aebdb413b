"""Data sets: files in; labelled faces, copies, sides and varied crops out."""
