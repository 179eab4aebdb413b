# Everything sets itself up: it needs python3.11 or newer, npm and make. `make lock` renews the pinned requirements.
PYTHON ?= python3
TEST_PROCESSES ?= 3
BIN := .venv/bin
PIP := $(BIN)/python -m pip -q --disable-pip-version-check

.PHONY: setup setup-dev demo env certificates test lint format bench fuzz lock clean

setup: .setup-run
	$(BIN)/python scripts/fetch_assets.py
	$(BIN)/python scripts/fetch_page_parts.py

setup-dev: .setup-dev

demo: .setup-run
	$(BIN)/maskwatch demo

env:
	$(PYTHON) scripts/make_env.py

certificates:
	$(PYTHON) scripts/make_certificates.py $(NAMES)

# First in several processes, because most tests wait; then one at a time the tests that measure times.
test: .setup-dev .setup-homeassistant
	$(BIN)/python -m pytest -n $(TEST_PROCESSES) --dist loadfile --no-loadscope-reorder -m "not alone"
	$(BIN)/python -m pytest -m alone

lint: .setup-dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

format: .setup-dev
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

bench: .setup-dev
	$(BIN)/python -m bench

fuzz: .setup-dev
	$(BIN)/python -m bench.fuzz

lock:
	cd requirements && for name in run train gpu train-gpu dev build convert; do \
	  uv pip compile -q --python-version 3.11 --universal --generate-hashes --no-emit-index-url --no-header --no-annotate $$name.in -o $$name.txt; done
	cd requirements && for name in assets homeassistant; do \
	  uv pip compile -q --python-version 3.11 --universal --no-deps --generate-hashes --no-emit-index-url --no-header --no-annotate $$name.in -o $$name.txt; done

# In a folder of its own, because Home Assistant pins packages that we use in other versions.
.setup-homeassistant: requirements/homeassistant.txt .setup-dev
	$(PIP) install --no-deps --require-hashes --upgrade --target .venv/homeassistant -r requirements/homeassistant.txt
	touch $@

clean:
	rm -rf .venv .setup-* node_modules build dist producer/assets trainer/assets viewer/static/vendor

$(BIN)/python:
	$(PYTHON) -c 'import sys; sys.exit("maskwatch needs Python 3.11 or newer" if sys.version_info < (3, 11) else 0)'
	$(PYTHON) -m venv .venv

.setup-run: requirements/run.txt requirements/build.txt requirements/assets.txt requirements/convert.txt pyproject.toml package-lock.json scripts/fetch_assets.py scripts/fetch_page_parts.py scripts/yunet_onnx.py scripts/efficientnet_weights.py | $(BIN)/python
	$(PIP) install --require-hashes -r requirements/run.txt
	$(PIP) install --require-hashes -r requirements/build.txt
	$(PIP) install --no-deps --no-build-isolation -e .
	$(BIN)/python scripts/fetch_assets.py
	$(BIN)/python scripts/fetch_page_parts.py
	touch $@

.setup-dev: requirements/dev.txt .setup-run
	$(PIP) install --require-hashes -r requirements/dev.txt
	$(BIN)/python scripts/fetch_page_parts.py --tests
	touch $@
