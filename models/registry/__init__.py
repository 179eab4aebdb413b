"""The model registry: versions of classifier and detector in a folder or behind a URL, and which are current."""
