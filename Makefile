# The two commands of the README are `make demo` and `make test`; both set up by themselves.
PY ?= $(shell command -v python3.11 || command -v python3)
BIN := .venv/bin
# Two test processes for each core: most of the time a test waits for a rate, an outage or another process.
JOBS ?= $(shell n=$$(nproc 2>/dev/null || echo 2); echo $$((n < 4 ? 2 * n : 8)))

# The rooms whose tests start no process.
ROOMS := tests/applier tests/ledger tests/manifest tests/pace tests/planner tests/zstack

.PHONY: help venv demo check rooms test pytest coverage lint fmt bench walk battery dist reference docs lock clean
.DEFAULT_GOAL := help

help:  ## list the targets
	@sed -n 's/^\([a-z]*\):.*## \(.*\)/  \1\t\2/p' $(MAKEFILE_LIST) | expand -t 14

venv: .venv/.ok  ## set up .venv from the hash-pinned lock

# --no-build-isolation: the build backend, too, comes from the hash-pinned lock.
.venv/.ok: requirements.lock pyproject.toml
	$(PY) -m venv .venv || { echo "This Python cannot make a venv; on Debian: apt-get install python3-venv" >&2; exit 1; }
	$(BIN)/pip install -q --disable-pip-version-check --require-hashes -r requirements.lock
	$(BIN)/pip install -q --disable-pip-version-check --no-deps --no-build-isolation -e .
	@touch $@

demo: venv  ## start a practice server and run samples/relabel.csv through it
	@$(BIN)/python -m samples.demo

# Side by side: either needs one core.
test: venv  ## lint and every test
	@$(MAKE) --no-print-directory -j2 lint pytest

check: venv  ## the fast loop: lint, and the tests that start no process
	@$(MAKE) --no-print-directory -j2 lint rooms

rooms: venv
	$(BIN)/pytest -n $(JOBS) --dist loadgroup $(ROOMS)

pytest: venv  ## every test
	$(BIN)/pytest -n $(JOBS) --dist loadgroup

# Every process that a test starts is counted, but one that is killed and one with a cleared environment (CONTRIBUTING.md).
# The deselected test looks at which modules are imported; coverage itself imports one of them. Three tests about system
# calls, signals and time fail under coverage; the leading "-" lets the report follow. `make test` is the judge.
coverage: venv  ## every test, with coverage of bulkimg/
	$(BIN)/coverage erase
	-$(BIN)/coverage run -m pytest -n $(JOBS) --dist loadgroup \
		--deselect tests/cli/test_commands.py::test_help_imports_neither_the_http_client_nor_the_models
	$(BIN)/coverage combine -q
	$(BIN)/coverage report

lint: venv  ## ruff, formatting, mypy, import-linter
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

fmt: venv  ## format the code and sort its imports
	$(BIN)/ruff check --fix --select I .
	$(BIN)/ruff format .

bench: venv  ## measure speed (needs nginx, curl, GNU parallel)
	$(BIN)/python -m tests.bench
	$(BIN)/python -m tests.bench.startup --keep
	$(BIN)/python -m tests.bench.walk --keep
	$(BIN)/python -m tests.bench.lines
	$(BIN)/python -m tests.bench.jobs --keep
	$(BIN)/python -m tests.bench.fsync --keep
	$(BIN)/python -m tests.bench.exactness
	$(BIN)/python -m tests.bench.adaptive
	$(BIN)/python -m tests.bench.scale
	$(BIN)/python -m tests.bench.formats
	$(BIN)/python -m tests.bench.cluster
	$(BIN)/python -m tests.bench.ways
	$(BIN)/python -m tests.bench.asked

walk: venv  ## count the calls of one row, from its claim to its durable outcome
	$(BIN)/python -m tests.bench.walk

battery: venv  ## every reliability test at full size (about an hour on 2 cores)
	$(BIN)/python -m tests.battery

dist: reference  ## wheel and sdist in dist/
	rm -rf dist
	$(BIN)/hatchling build -d dist

reference: venv  ## docs/reference/cli.md, man pages and completion from the program
	$(BIN)/python -m bulkimg.cli.reference

# The generator is pinned here and in no lock: nothing else needs it.
docs: reference  ## docs as a web site in site/
	$(PY) -m venv .venv-site
	.venv-site/bin/pip install -q --disable-pip-version-check zensical==0.0.60
	.venv-site/bin/zensical build --strict

# Needs uv; users and CI do not.
lock:  ## resolve requirements.lock again (needs uv)
	uv pip compile -q --universal --python-version 3.11 --generate-hashes --no-header --group dev pyproject.toml -o requirements.lock

clean:  ## remove .venv, runs and caches
	rm -rf .venv .coverage* runs .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache
