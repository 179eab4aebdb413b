"""The mask classifier: face crops in, probabilities of a mask out."""
