# The two commands of the README are `make demo` and `make test`; both install what they need.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed

.PHONY: install servers demo test check deep bench clean

install: $(STAMP)

$(STAMP): pyproject.toml
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "Python 3.11 or newer is needed")'
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --upgrade "pip>=25.1"
	$(BIN)/python -m pip install --quiet --editable ".[trio]" --group dev
	touch $@

# Tests start servers of their own; where CI or `make servers` asks and apt may, their programs are
# installed. Without them those tests are skipped, and fail in CI.
servers:
	@test -x "$$(command -v redis-server)" -a -n "$$(ls /usr/lib/postgresql/*/bin/initdb 2>/dev/null)" \
	-a -x /usr/sbin/pgbouncer || \
	{ test "$$(id -u)" = 0 && command -v apt-get >/dev/null && apt-get update -q && \
	apt-get install -q -y --no-install-recommends redis-server postgresql pgbouncer; } || \
	echo "not all of Redis, PostgreSQL and PgBouncer are installed: some tests cannot run"

demo: install
	$(BIN)/taskflow run demo

test: install $(if $(CI),servers)
	$(BIN)/python -m pytest -n 4

check: install
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/pyright --pythonpath $(BIN)/python
	$(BIN)/lint-imports
	$(BIN)/python -m sphinx -q -W -n docs build/docs

deep: install
	HYPOTHESIS_PROFILE=deep $(BIN)/python -m pytest -n 4

bench: install
	$(BIN)/python -m benchmarks

clean:
	rm -rf $(VENV) .mypy_cache .ruff_cache .hypothesis .import_linter_cache dist build
