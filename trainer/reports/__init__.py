"""Measure a network and report the figures."""
