"""How the viewer is served: the web server and its limits."""
