# Every target sets up .venv when it is missing or stale; `make` alone lists them. Options are checked in tools/options.py.
PYTHON ?= python3
SCALE ?=
SEED ?=
DEVICE ?=
CHAPTERS ?=
SEEDS ?=
SCHEDULER ?=
PORT ?=
NAME ?=
PYTEST ?=
export SCALE SEED DEVICE CHAPTERS SEEDS SCHEDULER PORT

VENV := .venv/bin/python

.PHONY: help book test lint lab serve pdf bench audit assignments wheel-check check-links pictures new-chapter lock clean environment environment-test

help:
	@echo "make book         build the book into build/html"
	@echo "make test         check everything: style, types, library, chapters, and the book in a browser"
	@echo "make lab          open the chapters in Jupyter, with their text set as in the book"
	@echo "make serve        show the built book at http://127.0.0.1:8000 (PORT=8001 for another port)"
	@echo "make pdf          print the built book: a PDF of each page and one of the whole, linked on the pages"
	@echo "make bench        time the library against its peers"
	@echo "make audit        execute the chapters with fresh seeds and print how often each claim holds"
	@echo "make assignments  make the student version, the solution and the grader of each assignment"
	@echo "make wheel-check  build the package, install it into an empty environment, and run its examples there"
	@echo "make check-links  ask every site that the built book links to whether the page is still there"
	@echo "make lint         only the style and type checks of make test"
	@echo "make pictures     take the pictures of the README anew from the built book"
	@echo "make new-chapter  start a chapter: NAME=x makes its notebook, package, tests and benchmark"
	@echo "make lock         resolve requirements-test.txt anew and pin the result in constraints.txt"
	@echo "make clean        remove build/ and caches (.venv stays)"
	@echo
	@echo "CHAPTERS='x y'    only these chapters       SCALE=full     the papers' sizes instead of a laptop's"
	@echo "SEED=3            another seed              DEVICE=cuda    or cpu, or auto"
	@echo "SEEDS=5           seeds of an audit         SCHEDULER=tcp://host:8786    run an audit on a cluster"
	@echo "PYTEST='-k x'     more options for pytest   PYTHON=python3.12            the Python that makes .venv"

environment:
	@$(PYTHON) -I tools/environment.py book

environment-test:
	@$(PYTHON) -I tools/environment.py test

book: environment
	@$(VENV) -m tools.build

test: environment-test
	@$(VENV) -m tools.browser
	@$(MAKE) --no-print-directory checks
	@$(VENV) -m pytest -n auto --maxschedchunk 1 $(PYTEST)

lint: environment-test
	@$(MAKE) --no-print-directory checks

.PHONY: checks
checks:
	$(VENV) -m ruff check
	$(VENV) -m ruff format --check
	$(VENV) -m mypy
	$(VENV) -m codespell_lib

lab: environment
	@$(VENV) -m jupyterlab --notebook-dir=chapters

serve: environment
	@$(VENV) -m tools.serve

pdf: environment-test
	@$(VENV) -m tools.browser
	@$(VENV) -m tools.build
	@$(VENV) -m tools.pdf

bench: environment
	@$(VENV) -m tools.bench

audit: environment
	@$(VENV) -m tools.audit

assignments: environment
	@$(VENV) -m tools.assignments

wheel-check: environment
	@$(VENV) -m tools.wheel

check-links: environment
	@$(VENV) -m tools.links

pictures: environment-test
	@$(VENV) -m tools.pictures

new-chapter: environment
	@$(VENV) -m tools.new_chapter $(NAME)

lock:
	@$(PYTHON) -m tools.lock

clean:
	rm -rf build .pytest_cache .mypy_cache .ruff_cache .hypothesis *.egg-info
	find . -name .venv -prune -o -name __pycache__ -type d -exec rm -rf {} +
