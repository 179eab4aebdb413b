"""The networks: the face detector, the mask classifier, and the registry of their versions."""

import os

# ONNX Runtime's official builds send telemetry to their maker unless this is set before they are imported.
os.environ["ORT_DISABLE_TELEMETRY"] = "1"
