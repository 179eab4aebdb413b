"""The web server and its connection limit."""
