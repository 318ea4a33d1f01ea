# Everything that is done with this project; `make` alone says what there is. What a target needs from the machine is
# named with the Debian package that brings it. PYTHON=python3.12 chooses an interpreter.

PYTHON ?= $(shell for p in python3.13 python3.12 python3.11 python3; do \
  command -v $$p >/dev/null 2>&1 && $$p -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null \
  && { echo $$p; break; }; done)
VENV := .venv
BIN := $(VENV)/bin
# The tests run side by side, a file to a process. They drive real processes by real clocks: one that was late on a busy
# machine is run once more, and named in the summary.
JOBS ?= $(shell n=$$(nproc 2>/dev/null || echo 2); [ "$$n" -gt 4 ] && n=4; echo "$$n")
UNITS := systemd/orchestr8d.service systemd/orchestr8d@.service

.DEFAULT_GOAL := help
.PHONY: help run test check bench torture python test-tools units

help: ## this list
	@sed -n 's/^\([a-z]*\):[^#]*## /\1\t/p' $(MAKEFILE_LIST) | expand -t 10

run: $(VENV)/run.stamp ## install into .venv and serve; Ctrl-C ends it
	@$(BIN)/python -m orchestr8d serve

test: python test-tools $(VENV)/test.stamp ## run all tests but the long torture
	$(BIN)/python -m pytest -n $(JOBS) --dist loadfile --no-loadscope-reorder --reruns 1 $(ARGS)

check: $(VENV)/test.stamp units ## lint, types, the floors of the design, the service units
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/python -m pytest -q tests/test_floors.py

bench: $(VENV)/test.stamp ## measure against the bars of the design, as ratios in one run
	$(BIN)/python -m tests.bench $(ARGS)

torture: python test-tools $(VENV)/test.stamp ## kill the daemon 500 times under load
	ORCHESTR8_TORTURE_ROUNDS=500 $(BIN)/python -m pytest -m torture $(ARGS)

# The environment is made once, and brought up to date when pyproject.toml says something new.
$(VENV)/run.stamp: pyproject.toml | python
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --editable .
	@touch $@

$(VENV)/test.stamp: pyproject.toml | python
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --editable '.[test,check]'
	@touch $@ $(VENV)/run.stamp

python:
	@test -n '$(PYTHON)' || { \
	  echo 'Python 3.11 or newer is missing; on Debian: apt-get install python3 python3-venv' >&2; exit 1; }
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { \
	  echo '$(PYTHON) is older than Python 3.11; on Debian: apt-get install python3 python3-venv' >&2; exit 1; }
	@$(PYTHON) -c 'import ensurepip, venv' 2>/dev/null || { \
	  echo 'the venv module of $(PYTHON) is missing; on Debian: apt-get install python3-venv' >&2; exit 1; }

# Tools that some tests use, as PROGRAM:PACKAGE. Root has them installed; others are told.
TEST_TOOLS := curl:curl faketime:faketime unshare:util-linux strace:strace
test-tools:
	@missing=; for tool in $(TEST_TOOLS); do \
	  command -v $${tool%%:*} >/dev/null 2>&1 || missing="$$missing $${tool##*:}"; done; \
	if [ -z "$$missing" ]; then exit 0; fi; \
	if [ "$$(id -u)" = 0 ] && command -v apt-get >/dev/null 2>&1; then \
	  echo "installing$$missing for the tests"; \
	  { apt-get install -y -qq $$missing || { apt-get update -qq && apt-get install -y -qq $$missing; }; } >/dev/null; \
	else echo "the tests need; on Debian: apt-get install$$missing" >&2; exit 1; fi

# systemd-analyze only warns of unknown keys, so any word from it is a fault. It wants a runtime directory, and an
# instance's name for the template.
units:
	@command -v systemd-analyze >/dev/null 2>&1 || { \
	  echo 'systemd-analyze is missing; on Debian: apt-get install systemd' >&2; exit 1; }
	@dir=$$(mktemp -d) && trap 'rm -rf "$$dir"' EXIT && \
	cp systemd/orchestr8d.service "$$dir/" && cp systemd/orchestr8d@.service "$$dir/orchestr8d@somebody.service" && \
	said=$$(XDG_RUNTIME_DIR="$$dir" systemd-analyze verify --man=no --user "$$dir/orchestr8d.service" 2>&1 && \
	        systemd-analyze verify --man=no "$$dir/orchestr8d@somebody.service" 2>&1) && [ -z "$$said" ] || \
	{ echo "$$said" >&2; exit 1; }; echo 'service units: verified'
