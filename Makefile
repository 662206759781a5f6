# make train | make test | make test-slow | make bench-quick | make lint | make lock
# Variables: PYTHON=python3.12, CONFIG=file.yaml, ARGS="key=value ... --dry-run"
PYTHON ?= python3
VENV ?= .venv
CONFIG ?= recipes/configs/local.yaml
ARGS ?=
READY := $(VENV)/.ready

.PHONY: setup train test test-slow bench-quick lint lock clean

train: $(READY)
	@$(VENV)/bin/python -m recipes.train $(CONFIG) $(ARGS)

test: $(READY)
	$(VENV)/bin/python -m pytest $(ARGS)

test-slow: $(READY)
	$(VENV)/bin/python -m pytest -m slow $(ARGS)

bench-quick: $(READY)
	$(VENV)/bin/python benchmarks/quick.py $(ARGS)

lint: $(READY)
	$(VENV)/bin/ruff check .
	$(VENV)/bin/ruff format --check .

setup: $(READY)

$(READY): pyproject.toml requirements.lock
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 10))' || \
	  { echo "$(PYTHON) is not Python 3.10 or newer: make PYTHON=python3.12 $(MAKECMDGOALS)" >&2; exit 1; }
	@test -x $(VENV)/bin/pip || $(PYTHON) -m venv --clear $(VENV) || { rm -rf $(VENV); \
	  echo "$(PYTHON) cannot make a virtual environment: apt-get install python3-venv" >&2; exit 1; }
	@echo "installing the locked dependencies into $(VENV) (once)"
	@$(VENV)/bin/pip install --quiet --disable-pip-version-check -c requirements.lock -e '.[train,dev]'
	@touch $(READY)

lock: $(READY)
	$(VENV)/bin/uv pip compile --universal --python-version 3.10 --extra train --extra dev --no-emit-package t5-on-ray \
	  --no-header --no-annotate -o requirements.lock pyproject.toml

clean:
	rm -rf $(VENV) build *.egg-info
