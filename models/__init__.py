"""The networks: find faces, tell masks, and the weights both use."""

import os

# ONNX Runtime's official builds report to their maker unless told otherwise before they are imported. A program that
# looks at faces tells nobody.
os.environ["ORT_DISABLE_TELEMETRY"] = "1"
