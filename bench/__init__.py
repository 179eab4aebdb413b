"""Measure speed and accuracy on this machine; every figure of the README comes from a command here."""
