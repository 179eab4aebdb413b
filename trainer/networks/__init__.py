"""Build, initialise and export networks in Keras."""
