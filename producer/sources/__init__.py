"""Sources of frames: webcams, video files, folders, RTSP and HTTP streams, and the demo scene."""
