"""Find network cameras: those that answer ONVIF's discovery, and the addresses of their streams."""
