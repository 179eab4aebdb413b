"""Where frames come from: sources, the live camera, and the complete-mode sender of files."""
