"""Train mask classifiers: data sets in, model folders out."""

import models  # noqa: F401 -- first of all: it keeps ONNX Runtime, which the export imports, from reporting anything
