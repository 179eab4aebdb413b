"""The model registry: versions of the classifier in a folder or behind a URL, and which of them is current."""
