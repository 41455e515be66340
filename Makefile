# make install   a virtual environment in .venv with everything
# make demo      the whole lifecycle at pocket scale, then where to look
# make demo-adaptive   the adaptive system's stages at pocket scale
# make test      the tests (make test-slow: those that take minutes each, such as killing every stage)
# make ui        MLflow and Prefect on the results
# make lint      ruff and pyright
.PHONY: install data demo demo-adaptive test test-slow ui lint doctor

PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
# Where to find a PyTorch build for this machine, such as a small one for CPU; the default is PyPI's.
TORCH_INDEX ?=

install: $(BIN)/interloom

$(BIN)/interloom: pyproject.toml constraints.txt
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet $(if $(TORCH_INDEX),--extra-index-url $(TORCH_INDEX)) -c constraints.txt -e '.[dev]'
	touch $@

# With this allocator (Debian: libtcmalloc-minimal4) training on CPU needs a quarter less time than with glibc's.
demo demo-adaptive: export LD_PRELOAD := $(firstword $(wildcard /usr/lib/*/libtcmalloc_minimal.so.4))

demo: install
	$(BIN)/interloom lifecycle

demo-adaptive: install
	$(BIN)/interloom lifecycle --system adaptive

# The shipped models, out of the repository's own remote.
data: install
	$(BIN)/dvc pull --quiet data.dvc

test: data
	$(BIN)/pytest -m 'not slow' -n auto --maxprocesses 4 --dist loadfile

test-slow: data
	$(BIN)/pytest -m slow

ui: install
	$(BIN)/interloom ui

lint: install
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/pyright

doctor: install
	$(BIN)/interloom doctor
