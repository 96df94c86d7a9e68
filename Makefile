# make demo        the whole way on a capture that is rendered on the spot; ends with the path of a report
# make test        the tests: what must pass before a change lands
# make test-fast   those of them that are quick, for an answer in between
# make test-all    all tests: the slow ones, those on a GPU and those in a browser as well
# make test-docs   those of the documents, and of the examples in CONTRIBUTING.md
# make test-gpu    those on a GPU
# make lint        style and types           make format   mend the style
# make docs        the documentation as a site, in docs/_build; every warning is an error
# make package     source archive and wheel in dist/, checked
# make clean       remove what these commands made
#
# Everything is installed once, into .venv. Another Python: make PYTHON=python3.11 demo

PYTHON ?= python3
VENV := .venv
INSTALLED := $(VENV)/.installed

# Two files of tests at a time; a file stays together, since its tests share what is costly to make.
SIDE_BY_SIDE := -n 2 --dist loadfile --no-loadscope-reorder

# Threads that wait by spinning take the cores away from those that work, several times over on a busy machine.
export OMP_WAIT_POLICY ?= PASSIVE

.PHONY: demo test test-fast test-all test-docs test-gpu lint format docs package clean ffmpeg

demo: $(INSTALLED) ffmpeg
	@$(VENV)/bin/surface-sos demo

test: $(INSTALLED) ffmpeg
	@$(VENV)/bin/python -m pytest $(SIDE_BY_SIDE) --durations=15

# What is listed at the end is not quick: it lacks a marker `seconds`.
test-fast: $(INSTALLED)
	@$(VENV)/bin/python -m pytest --fast --durations=15 --durations-min=2

test-all: $(INSTALLED) ffmpeg
	@$(VENV)/bin/python -m pytest -m '' --durations=30

test-docs: $(INSTALLED)
	@$(VENV)/bin/python -m pytest tests/test_documents.py tests/test_contributing.py tests/test_house.py

test-gpu: $(INSTALLED)
	@$(VENV)/bin/python -m pytest -m gpu --durations=15

lint: $(INSTALLED)
	@$(VENV)/bin/ruff check .
	@$(VENV)/bin/ruff format --check .
	@$(VENV)/bin/mypy
	@$(VENV)/bin/lint-imports

format: $(INSTALLED)
	@$(VENV)/bin/ruff check --fix .
	@$(VENV)/bin/ruff format .

# -n: also what autodoc refers to must exist; conf.py names the packages whose own pages are not looked at.
docs: $(INSTALLED)
	@$(VENV)/bin/python -m sphinx -n -W --keep-going --quiet -d docs/_build/doctrees docs docs/_build/html
	@echo docs/_build/html/index.html

package: $(INSTALLED)
	@rm -rf build dist
	@$(VENV)/bin/python -m build
	@$(VENV)/bin/python -m twine check --strict dist/*
	@$(VENV)/bin/python -m pytest tests/test_package.py

clean:
	rm -rf $(VENV) build dist docs/_build *.egg-info .mypy_cache .import_linter_cache .pytest_cache .ruff_cache
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

# The stamp is written last, so an interrupted installation is taken up again and a finished one is not repeated.
$(INSTALLED): pyproject.toml
	@$(PYTHON) -c 'import sys; v = sys.version_info[:2]; sys.exit(None if v >= (3, 10) else \
	    "Python 3.10 or newer is needed, this is %d.%d. Name another one: make PYTHON=python3.11 demo" % v)'
	@$(PYTHON) -c 'import venv, ensurepip' 2>/dev/null || { \
	    echo "$(PYTHON) cannot make virtual environments. On Debian and Ubuntu: sudo apt-get install python3-venv"; \
	    exit 1; }
	@test -x $(VENV)/bin/python || $(PYTHON) -m venv $(VENV)
	@echo "Installing nerfstudio, torch and the rest into $(VENV): once, several GB, 3 to 20 minutes, quietly ..."
	@$(VENV)/bin/python -m pip install --quiet --editable '.[dev]'
	@touch $@

# nerfstudio's ns-render makes videos with the ffmpeg program. Nothing else needs it, so its absence stops nothing here.
ffmpeg:
	@command -v ffmpeg >/dev/null && exit 0; \
	if [ "`id -u`" = 0 ] && command -v apt-get >/dev/null; then \
	    echo "ffmpeg is missing (ns-render makes videos with it): installing it with apt-get ..."; \
	    { apt-get update -qq && DEBIAN_FRONTEND=noninteractive apt-get install -y -qq ffmpeg >/dev/null; } \
	        || echo "That failed. Without ffmpeg ns-render makes no videos; everything else works."; \
	else \
	    echo "ffmpeg is missing: ns-render will make no videos, everything else works. On Debian: sudo apt-get install ffmpeg"; \
	fi
