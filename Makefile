# Gatehouse. `make run` serves, `make test` proves, `make help` lists the rest.

PYTHON ?= $(shell for python in python3 python3.14 python3.13 python3.12 python3.11; do \
	$$python -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null && echo $$python && break; done)
PIP := -m pip install --quiet --disable-pip-version-check --no-input
# Bytecode is kept even where the environment says otherwise: the tests start many processes.
PYTEST := env -u PYTHONDONTWRITEBYTECODE .venv-dev/bin/python -m pytest

.DEFAULT_GOAL := help
.PHONY: help run install test fast acceptance lint types bench lock clean

help: ## list the targets
	@awk -F ':.*## ' '/^[a-z.-]+:.*## / { printf "  make %-12s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

run: .venv/ready ## serve with the demo fleet until Ctrl-C
	@exec .venv/bin/gatehouse serve --demo config/demo.ndjson

install: .venv/ready ## make .venv with the product and its command, and nothing else

test: .venv-dev/ready .venv-vendor/ready .venv-vendor-tencent/ready ## pass every test
	$(PYTEST) -n 4 --dist worksteal

fast: .venv-dev/ready ## the tests that need no server
	$(PYTEST) -q -p no:xdist -p no:doctest -p no:cacheprovider -o timeout=0 --hypothesis-profile=fast -m "not server and not vendor and not slow"

acceptance: .venv-dev/ready .venv-vendor/ready .venv-vendor-tencent/ready ## the program as its users meet it: vendors' SDKs, tour, restarts
	$(PYTEST) -m "vendor or acceptance"

lint: .venv-dev/ready ## ruff
	.venv-dev/bin/ruff check .
	.venv-dev/bin/ruff format --check .

types: .venv-dev/ready ## mypy --strict
	.venv-dev/bin/mypy

bench: .venv/ready ## measure a fresh service with simulated devices
	.venv/bin/python bench/run.py
	.venv/bin/python bench/certificates.py
	.venv/bin/python bench/registrations.py

lock: .venv-dev/ready ## renew config/lock from pyproject.toml
	sh config/lock/renew

clean: ## remove what the targets made; the data directory stays
	rm -rf .venv .venv-dev .venv-vendor .venv-vendor-tencent build *.egg-info .pytest_cache .mypy_cache .ruff_cache .hypothesis

.venv/ready: config/lock/product.txt pyproject.toml
	@test -n "$(PYTHON)" || { echo "Gatehouse needs Python 3.11 or newer: PYTHON=/path/to/python3 make" >&2; exit 1; }
	@echo "Installing Gatehouse into .venv ..."
	@$(PYTHON) -m venv --clear .venv
	@.venv/bin/python $(PIP) --require-hashes -r config/lock/product.txt
	@.venv/bin/python $(PIP) --no-deps --no-build-isolation --editable .
	@touch $@

.venv-dev/ready: config/lock/develop.txt pyproject.toml
	@test -n "$(PYTHON)" || { echo "Gatehouse needs Python 3.11 or newer: PYTHON=/path/to/python3 make" >&2; exit 1; }
	@echo "Installing the tools of the tests into .venv-dev ..."
	@$(PYTHON) -m venv --clear .venv-dev
	@.venv-dev/bin/python $(PIP) --require-hashes -r config/lock/develop.txt
	@.venv-dev/bin/python $(PIP) --no-deps --no-build-isolation --editable .
	@touch $@

.venv-vendor/ready: config/lock/vendor.txt
	@echo "Installing EnOS's SDK into .venv-vendor ..."
	@$(PYTHON) -m venv --clear .venv-vendor
	@.venv-vendor/bin/python $(PIP) --require-hashes -r config/lock/vendor.txt
	@touch $@

# What has no wheel is built by the locked tools of .venv-dev.
.venv-vendor-tencent/ready: config/lock/vendor-tencent.txt .venv-dev/ready
	@echo "Installing Tencent's SDK into .venv-vendor-tencent ..."
	@.venv-dev/bin/python -m venv --clear .venv-vendor-tencent
	@.venv-dev/bin/python -m pip wheel --quiet --disable-pip-version-check --no-input --no-deps --no-build-isolation \
		--require-hashes -r config/lock/vendor-tencent.txt --wheel-dir .venv-vendor-tencent/wheels
	@.venv-vendor-tencent/bin/python $(PIP) --no-deps --no-index .venv-vendor-tencent/wheels/*.whl
	@touch $@

.PHONY: .venv-vendor .venv-vendor-tencent
.venv-vendor: .venv-vendor/ready
.venv-vendor-tencent: .venv-vendor-tencent/ready
