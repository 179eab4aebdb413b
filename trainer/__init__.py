"""Train mask classifiers: data sets in, model folders out."""

import logging
import os

import models  # noqa: F401 -- first of all: it keeps ONNX Runtime, which the export imports, from reporting anything

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")  # TensorFlow's notes about this machine's processor help nobody
logging.getLogger("tf2onnx").setLevel(logging.WARNING)
# ONNX Runtime's quantizer writes to the root logger itself, a line for each scale that it changes.
logging.getLogger().addFilter(lambda record: record.levelno >= logging.WARNING)
