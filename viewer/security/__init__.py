"""Who may use the viewer: sign-in, sessions, and the checks that every request passes."""
