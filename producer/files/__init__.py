"""Complete mode: label every frame of a file or folder, and write what was found."""
