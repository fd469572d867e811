# make demo: the whole job on sample data, no GPU needed.   make test: install and run the tests.
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin

.PHONY: demo test lint docs clean samples

demo: $(VENV)/.installed
	$(BIN)/python scripts/demo.py

test: $(VENV)/.installed
	$(BIN)/python -m pytest -q

lint: $(VENV)/.installed
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

# The documentation's own examples and links, checked.
docs: $(VENV)/.installed
	$(BIN)/python -m pytest -q tests/docs

# Train the sample models again (needs PyTorch; over an hour on two cores).
samples: $(VENV)/.installed
	$(BIN)/python -m pip install -q torch==2.13.0
	$(BIN)/python -m samples.train

$(VENV)/.installed: setup.py requirements/pinned.txt
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install -q --disable-pip-version-check -c requirements/pinned.txt -e '.[rtx,dev]'
	touch $@

clean:
	rm -rf $(VENV) demo build dist *.egg-info
