"""Measure speed and accuracy on this machine; a command in here prints each figure of the README.

    python -m bench [SECTION...]

measures what docs/performance.md shows (`make bench`).
"""
