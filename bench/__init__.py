"""Measure speed and accuracy on this machine; a command in here prints each figure of the README."""
