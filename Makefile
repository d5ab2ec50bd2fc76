# The two commands of the README are `make demo` and `make test`; both set up by themselves.
PY ?= $(shell command -v python3.11 || command -v python3)
BIN := .venv/bin
# Two test processes for each core: most of the time a test waits for a rate, an outage or another process.
JOBS ?= $(shell n=$$(nproc 2>/dev/null || echo 2); echo $$((n < 4 ? 2 * n : 8)))

.PHONY: venv demo test pytest coverage bench battery lint lock clean

venv: .venv/.ok

# --no-build-isolation: the build backend, too, comes from the hash-pinned lock.
.venv/.ok: requirements.lock pyproject.toml
	$(PY) -m venv .venv || { echo "This Python cannot make a venv; on Debian: apt-get install python3-venv" >&2; exit 1; }
	$(BIN)/pip install -q --disable-pip-version-check --require-hashes -r requirements.lock
	$(BIN)/pip install -q --disable-pip-version-check --no-deps --no-build-isolation -e .
	@touch $@

demo: venv
	@$(BIN)/python -m samples.demo

# Side by side: either needs one core.
test: venv
	@$(MAKE) --no-print-directory -j2 lint pytest

pytest: venv
	$(BIN)/pytest -n $(JOBS) --dist loadgroup -m "not alone"
	$(BIN)/pytest -m alone

# Every process that a test starts is counted, but one that is killed and one with a cleared environment (CONTRIBUTING.md).
# The test left out looks at which modules are imported; coverage itself imports one of them.
coverage: venv
	$(BIN)/coverage erase
	$(BIN)/coverage run -m pytest -n $(JOBS) --dist loadgroup -m "not alone" \
		--deselect tests/cli/test_commands.py::test_help_imports_neither_the_http_client_nor_the_models
	$(BIN)/coverage combine -q
	$(BIN)/coverage report

lint: venv
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

bench: venv
	$(BIN)/python -m tests.bench
	$(BIN)/python -m tests.bench.exactness
	$(BIN)/python -m tests.bench.adaptive
	$(BIN)/python -m tests.bench.scale
	$(BIN)/python -m tests.bench.asked

battery: venv
	$(BIN)/python -m tests.battery

# Needs uv; users and CI do not.
lock:
	uv pip compile -q --universal --python-version 3.11 --generate-hashes --no-header --group dev pyproject.toml -o requirements.lock

clean:
	rm -rf .venv .coverage* runs .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache
