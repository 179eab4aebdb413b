"""Stateless workers: frames become faces, faces become labels. Start more of either to go faster."""
