# `make demo` and `make test` on a machine that has Python 3.11 or newer and make; everything else goes into .venv.

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
DEMO := demo
SOAK_MINUTES := 60
UNTIMED := --timeout 0 -o faulthandler_timeout=0

.DEFAULT_GOAL := help
.PHONY: help install demo test battery soak check docs format map clean

help: ## Show this list
	@sed -n 's/^\([a-z]*\):.*## \(.*\)/  make \1\t\2/p' Makefile | expand -t 16

install: $(VENV)/installed ## Make the environment .venv with pinned versions

$(VENV)/installed: pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' \
		|| { echo "verydeep needs Python 3.11 or newer: make PYTHON=/path/to/python3.11"; exit 1; }
	@$(PYTHON) -m venv $(VENV) \
		|| { echo "no venv module: install it (on Debian: apt install python3-venv)"; exit 1; }
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[dev]'
	@touch $@

demo: install ## Train all seven networks on real handwritten digits and write a report (2 to 3 minutes on 2 cores)
	$(BIN)/verydeep reproduce --quick --out $(DEMO)

test: install ## Run the tests, on up to 4 cores at once, and name what was skipped
	$(BIN)/python -m pytest -rfEs -n auto --dist loadfile --no-loadscope-reorder

battery: install ## Run the long tests at full length, with an hour (or SOAK_MINUTES) of a service, and print figures
	SOAK_MINUTES=$(SOAK_MINUTES) $(BIN)/python -m pytest -rfEs $(UNTIMED) --battery tests/reliability tests/serving tests/test_demo.py tests/conversion/test_export.py \
		tests/training/test_parallel.py tests/training/test_initialisations_on_digits.py tests/reproduction/test_side_by_side.py tests/test_doctor.py tests/docs \
		tests/images/test_workers.py tests/images/test_loader.py tests/images/test_same_pixels.py tests/test_dirty_data.py tests/test_extremes.py

soak: install ## Run a service alone at 0.8 of its capacity, for an hour or SOAK_MINUTES
	SOAK_MINUTES=$(SOAK_MINUTES) $(BIN)/python -m pytest -rfEs $(UNTIMED) --battery tests/reliability/test_serving.py -k soak

check: install docs ## Check format, lint, types, layers, and the site and its Japanese pages
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports
	$(BIN)/python docs/translations.py

docs: install ## Build the site into build/docs (open build/docs/index.html)
	$(BIN)/sphinx-build -q -W --keep-going -d build/doctrees docs build/docs

format: install ## Format the code, and fix what the linter can fix
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

map: ## Write the map of the code in docs/ARCHITECTURE.md from docstrings
	$(PYTHON) docs/map.py

clean: ## Remove the environment, caches and the demo
	rm -rf $(VENV) $(DEMO) build dist .hypothesis .import_linter_cache .mypy_cache .pytest_cache .ruff_cache
