"""Tell masked faces from bare ones: crops in, probabilities out."""
