# Two commands on a fresh machine: `make demo` and `make test`. Each does its own set-up.
PYTHON ?= python3
BIN := .venv/bin
SET_UP := .venv/.set-up
# what runs, without what tests it
RUNS := .venv/.runs

.PHONY: demo test setup dev check docs format clean

demo: $(RUNS)
	@$(BIN)/python -m poller demo

# says what of this machine is in the way, what was left out, and how long each part took;
# TESTS_PATIENCE=4 waits four times as long as on a quiet machine, instead of the multiple it measures
test: $(SET_UP)
	@$(BIN)/python -m tests.run

# .venv alone, to run `poller` from
setup: $(RUNS)

# .venv with what tests it, too
dev: $(SET_UP)

check: $(SET_UP)
	$(BIN)/ruff format --check poller tests
	$(BIN)/ruff check poller tests
	$(BIN)/mypy
	$(BIN)/lint-imports

# the pages of docs/, into build/docs; fails for a link or an anchor that leads nowhere
docs: $(SET_UP)
	$(BIN)/properdocs build --quiet --strict -f config/docs/properdocs.yml
	@echo build/docs/index.html

format: $(SET_UP)
	$(BIN)/ruff format poller tests
	$(BIN)/ruff check --fix poller tests

$(SET_UP): pyproject.toml config/pins/dev.txt config/pins/build.txt
	@sh tests/set-up.sh $(PYTHON) dev
	@touch $(RUNS) $@

$(RUNS): pyproject.toml config/pins/run.txt config/pins/build.txt
	@sh tests/set-up.sh $(PYTHON) run
	@touch $@

clean:
	rm -rf .venv

.PHONY: chaos
chaos: $(SET_UP)
	CHAOS_KILLS=$${CHAOS_KILLS:-1000} $(BIN)/pytest -q tests/test_chaos.py

.PHONY: bench
bench: $(SET_UP)
	$(BIN)/python -m tests.bench
	$(BIN)/python -m tests.bench_idle
	$(BIN)/python -m tests.bench_endpoints
	$(BIN)/python -m tests.bench_latency
	$(BIN)/python -m tests.bench_schedule
	$(BIN)/python -m tests.bench_rank
	$(BIN)/python -m tests.bench_rights
	$(BIN)/python -m tests.bench_webhooks
	$(BIN)/python -m tests.bench_history
	$(BIN)/python -m tests.bench_readers

# the unit under a real systemd, in a tree of its own; needs root and systemd-nspawn
.PHONY: systemd
systemd: $(SET_UP)
	$(BIN)/python -m tests.real_systemd

# the wheel, installed with each Python of this machine and with uvx, plays the demo; PYTHONS
.PHONY: pythons
pythons: $(SET_UP)
	$(BIN)/python -m tests.pythons

# the image and compose.yaml, in namespaces of their own; needs root, buildah, podman, crun and debootstrap
.PHONY: container
container: $(SET_UP)
	$(BIN)/python -m tests.real_container

# an hour of the real service with faults now and then; SOAK_MINUTES, SOAK_SEED
.PHONY: soak
soak: $(SET_UP)
	$(BIN)/python -m tests.soak

# everything that reads what outsiders send, 60 s each; FUZZ_SECONDS, FUZZ_INPUTS, FUZZ_SEED, FUZZ_ONLY
.PHONY: fuzz
fuzz: $(SET_UP)
	$(BIN)/python -m tests.fuzz

# the suite once more, slower: which lines and branches does no test reach? build/coverage/index.html
.PHONY: coverage
coverage: $(SET_UP)
	@rm -rf build/coverage && mkdir -p build/coverage
	@$(BIN)/coverage run -m pytest -q -n 3 --dist worksteal; failed=$$?; $(BIN)/coverage combine -q && \
		$(BIN)/coverage html -q && $(BIN)/coverage report && exit $$failed

# small mistakes, one at a time: which do the tests not notice? MUTANTS, MUTANTS_SEED, MUTANTS_ONLY
.PHONY: mutants
mutants: $(SET_UP)
	$(BIN)/python -m tests.mutants

# both in a Debian bootstrapped for it, as root and as somebody who is not; needs root and debootstrap
.PHONY: bare
bare:
	@sh tests/bare_debian.sh
