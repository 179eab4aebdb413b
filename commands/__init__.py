"""The command line's families of commands; maskwatch.py lists them."""
