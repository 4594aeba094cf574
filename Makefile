# make demo   speak a dialogue with the embedded model
# make test   set up and run all tests
# make lint   ruff and mypy
# make serve  start the server

PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
TORCH := 2.13.0

.PHONY: demo test lint serve clean
.DEFAULT_GOAL := demo

demo: $(VENV)/.server
	$(BIN)/python clients/examples/demo.py

test: $(VENV)/.dev
	$(BIN)/python -m pytest --ignore=tests/protocol
	COVERAGE_FILE=$(VENV)/.coverage $(BIN)/python -m pytest tests/protocol \
	  --cov=streamer_protocol --cov-branch --cov-fail-under=100 --cov-report=term-missing:skip-covered

lint: $(VENV)/.dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy --strict protocol/streamer_protocol kernels/streamer_kernels clients/python/streamer_client
	$(BIN)/mypy streamer protocol/streamer_protocol kernels/streamer_kernels clients/python/streamer_client clients/examples tests training bench

serve: $(VENV)/.server
	$(BIN)/streamer serve

clean:
	rm -rf $(VENV)

$(VENV)/.server: $(VENV)/.torch pyproject.toml
	$(BIN)/pip install -q -e '.[server]'
	@$(BIN)/python -c 'import opuslib_next' 2>/dev/null || { echo "libopus is missing; install it:" \
	  "Debian/Ubuntu: apt-get install libopus0, Fedora: dnf install opus, macOS: brew install opus"; exit 1; }
	@touch $@

$(VENV)/.dev: $(VENV)/.server pyproject.toml
	$(BIN)/pip install -q -e '.[server,dev]'
	@touch $@

# PyPI's torch for Linux carries gigabytes of CUDA libraries; without an NVIDIA driver the CPU build is all that is
# needed. pip finds it where a folder of wheels has it, uv knows where PyTorch publishes it.
$(VENV)/.torch: $(VENV)/.venv
	@echo "installing torch $(TORCH)"
	@if command -v nvidia-smi >/dev/null 2>&1; then \
	  $(BIN)/pip install -q "torch==$(TORCH)"; \
	else \
	  $(BIN)/pip install -q "torch==$(TORCH)+cpu" 2>/dev/null || \
	  { $(BIN)/pip install -q uv && \
	    $(BIN)/uv pip install -q --python $(BIN)/python --torch-backend=cpu "torch==$(TORCH)"; } || \
	  $(BIN)/pip install -q "torch==$(TORCH)"; \
	fi
	@touch $@

$(VENV)/.venv:
	@$(PYTHON) -c 'import sys; sys.exit(not (3, 10) <= sys.version_info < (3, 14))' || \
	  { echo "Python 3.10 to 3.13 is needed, $(PYTHON) is $$($(PYTHON) --version 2>&1); name another with make PYTHON=..."; exit 1; }
	@$(PYTHON) -m venv $(VENV) || \
	  { rm -rf $(VENV); echo "the venv module is missing: apt-get install python3-venv"; exit 1; }
	@touch $@
