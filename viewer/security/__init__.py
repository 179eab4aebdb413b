"""Who may use the viewer: sign-in, sessions, and the checks that each request passes."""
