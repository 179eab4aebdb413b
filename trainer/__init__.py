"""Train mask classifiers: data sets in, model folders out."""

import logging
import os

import models  # noqa: F401  # first: it disables the telemetry of ONNX Runtime, which the export imports

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")  # warnings and errors only
logging.getLogger("tf2onnx").setLevel(logging.WARNING)
# ONNX Runtime's quantizer writes to the root logger, a line for each scale that it changes.
logging.getLogger().addFilter(lambda record: record.levelno >= logging.WARNING)
