# Everything here needs only make and Python 3.11 or newer: the first target that needs .venv
# makes it. Written for make 3.81 too, which is what macOS has.

PYTHON ?=
ROUNDS ?=
SEED ?=
PLANTS ?=
ARGS ?=

RUN := .venv/bin/python
FOLDERS := bench engine server state tools

# The editable install is a tree of links, and a tree of links has no link to a module that was
# added since. So "is .venv up to date?" asks for a stamp named after all that the install was
# made from: the pins, the list of our files, and where this checkout is. No dates are compared,
# so switching branches is noticed too. The stamps are kept beside the links, so that whoever
# removes build/ gets both back.
KEY := $(shell { pwd; cat pyproject.toml constraints.txt; \
    find $(FOLDERS) -type f ! -name '*.pyc' | LC_ALL=C sort; } | cksum | cut -d ' ' -f 1)
WITH_CLI := build/ready-cli-$(KEY)
WITH_DEV := build/ready-dev-$(KEY)

.PHONY: help
help: ## this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-12s %s\n", $$1, $$2 }' Makefile
	@echo "  PYTHON=python3.12 chooses the interpreter that .venv is made with; 'make clean' first."

.PHONY: demo
demo: $(WITH_CLI) ## build a real project, cancel it half-way, watch everything of it die
	@$(RUN) examples/demo.py $(ARGS)

# One more than there are cores, because tests wait for processes; not more than 8.
WORKERS := $(shell n=$$(getconf _NPROCESSORS_ONLN 2>/dev/null || echo 2); echo $$(( n < 7 ? n + 1 : 8 )))

.PHONY: test
test: $(WITH_DEV) ## all tests: style, types and import rules are among them (ARGS="-k cancel -x")
ifeq ($(strip $(ARGS)),)
	@$(RUN) -m pytest -q -m "not programme" -n $(WORKERS)
	@$(RUN) -m pytest -m programme # alone: they kill, and measure, and use every core themselves
else
	@$(RUN) -m pytest $(ARGS)
endif

.PHONY: lint
lint: $(WITH_DEV) ## only style, types and import rules
	@$(RUN) -m pytest tests/test_lint.py tests/test_architecture.py $(ARGS)

.PHONY: format
format: $(WITH_DEV) ## let ruff lay out the code and mend what it can
	@$(RUN) -m ruff format
	@$(RUN) -m ruff check --fix

.PHONY: soak
soak: $(WITH_DEV) ## what draws at random and kills, for hours (ROUNDS=3: 3 x its form in make test; SEED=1)
	@$(RUN) -m pytest -q -m "not programme" -n $(WORKERS) $(if $(ROUNDS),--rounds $(ROUNDS),--soak)
	@$(RUN) -m pytest -m programme $(if $(ROUNDS),--rounds $(ROUNDS),--soak) $(if $(SEED),--seed $(SEED)) $(ARGS)
	@$(if $(PLANTS),$(RUN) -m tests.plants)

.PHONY: conformance
conformance: $(WITH_DEV) ## the official MCP suite against our server: every scenario, and why if it does not count
	@$(RUN) -m tests.conformance $(ARGS)

.PHONY: plants
plants: $(WITH_DEV) ## put bugs into a copy of the code, one after the other: the tests must notice
	@$(RUN) -m tests.plants $(ARGS)

.PHONY: bench
bench: $(WITH_CLI) ## measure on this machine, each thing beside its floor (ARGS="--quick --only warm")
	@$(RUN) -m bilt_mcp.server bench $(ARGS)

.PHONY: figures
figures: $(WITH_CLI) ## put docs/figures.json into the documentation, as tables and pictures
	@$(RUN) -m bilt_mcp.bench.picture docs/figures.json $(if $(wildcard docs/peers.json),--peers docs/peers.json) \
	    $(if $(wildcard docs/clients.json),--clients docs/clients.json) --draw docs --fill README.md docs/performance.md

.PHONY: bench-peers
bench-peers: $(WITH_CLI) ## the same job on other job runners, side by side (ARGS="--quick --only dbos")
	@$(RUN) bench/peers/run.py $(ARGS)

.PHONY: clients
clients: $(WITH_DEV) ## every known client against the server, each in its environment (ARGS="--only langchain")
	@$(RUN) -m tests.clients $(ARGS)

# Resolved with the oldest Python that we support: what resolves there resolves on the newer ones.
# A fresh environment, so that nothing is pinned that only happened to be installed.
.PHONY: constraints
constraints: PYTHON := $(or $(PYTHON),python3.11)
constraints: ## resolve pyproject.toml anew into constraints.txt (needs python3.11)
	@echo "Resolving with $(PYTHON) ..."
	@$(PYTHON) -m venv --clear build/pins
	@build/pins/bin/python -m pip install -qq --disable-pip-version-check '.[dev,sqlite]'
	@build/pins/bin/python -m pip freeze --all --exclude pip --exclude bilt-mcp > build/pins.txt
	@mv build/pins.txt constraints.txt
	@rm -rf build/pins build/lib build/bdist.*
	@echo "constraints.txt: $$(wc -l < constraints.txt | tr -d ' ') packages"

.PHONY: clean
clean: ## remove .venv and everything that was made
	rm -rf .venv build dist *.egg-info examples/storefront/build
	rm -rf .hypothesis .import_linter_cache .mypy_cache .pytest_cache .ruff_cache
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

# Remade also when the interpreter that it was made with is gone, or uv made it, without a pip.
ifneq ($(shell test -x $(RUN) && test -x .venv/bin/pip && echo works),works)
.PHONY: .venv/pyvenv.cfg
endif
.venv/pyvenv.cfg:
	@set -e; found=; \
	for python in $(or $(PYTHON),python3.13 python3.12 python3.11 python3); do \
	    if $$python -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null; \
	    then found=$$python; break; fi; \
	done; \
	if [ -z "$$found" ]; then \
	    echo "bilt-mcp needs Python 3.11 or newer; found none as:" \
	        "$(or $(PYTHON),python3.13 python3.12 python3.11 python3)." >&2; \
	    echo "Install one, or name it: make PYTHON=/path/to/python3.12 ..." >&2; exit 1; \
	fi; \
	if ! $$found -c 'import ensurepip, venv' 2>/dev/null; then \
	    echo "$$found cannot make environments: its venv or ensurepip is missing." >&2; \
	    echo "On Debian and Ubuntu: apt install python3-venv" >&2; exit 1; \
	fi; \
	echo "Setting up .venv with $$($$found --version), once ..."; \
	$$found -m venv --clear .venv
	@touch $@

# setuptools first and then no build isolation: the build is pinned like everything else, and
# bringing the links up to date takes two seconds and no network. uv needs a second of what takes
# pip a minute; where it cannot (a mirror that only pip has been told of), pip does it.
PIP_INSTALL := $(RUN) -m pip install -qq --disable-pip-version-check -c constraints.txt
UV_INSTALL := .venv/bin/uv pip install -q --python $(RUN) -c constraints.txt
build/ready-%-$(KEY): .venv/pyvenv.cfg
	@echo "Bringing .venv up to date ($*) ..."
	@rm -rf build/__editable__.*
	@$(PIP_INSTALL) setuptools uv
	@$(UV_INSTALL) --no-build-isolation -e '.[$*]' || $(PIP_INSTALL) --no-build-isolation -e '.[$*]'
	@find build -maxdepth 1 -name 'ready-*' ! -name '*-$(KEY)' -exec rm -f {} +
	@touch $@ $(WITH_CLI)
