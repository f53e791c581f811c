# Two commands do all the set-up: `make demo` and `make test`.
PYTHON ?= python3.11
VENV := .venv
BIN := $(VENV)/bin
READY := $(VENV)/.ready

.PHONY: demo test check bench truth docs wheel mini sae-paper clean

demo: $(READY)
	$(BIN)/otoscope demo --out runs/demo

test: $(READY)
	$(BIN)/python -m pytest -n 2 --dist loadfile

check: $(READY)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/pyright
	$(BIN)/lint-imports

bench: $(READY)
	$(BIN)/python bench/run.py

truth: $(READY)
	$(BIN)/python truth/run.py

docs: $(READY)
	$(BIN)/pip install --quiet --constraint constraints.txt --editable ".[docs]"
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict

wheel: $(READY)
	$(BIN)/python -m build --wheel

sae-paper: $(READY)
	$(BIN)/otoscope sae paper --data ../shared/data --out runs/sae-paper

mini: $(READY)
	$(BIN)/pip install --quiet --constraint constraints.txt --requirement recipes/mini_qwen2_audio/requirements.txt
	$(BIN)/python recipes/mini_qwen2_audio/train.py --data ../shared/data --work runs/mini

# torch is named first, so that its CPU build is taken wherever the pinned version has one at hand
$(READY): pyproject.toml constraints.txt
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --constraint constraints.txt torch
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable ".[dev,speech]"
	touch $@

clean:
	rm -rf $(VENV) build dist site runs
