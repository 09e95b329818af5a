# Everything a person can do here; `make help` lists it. A target needs Python 3.11+, make and the package registries.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
READY := $(VENV)/.ready
PEERS := .bench/.ready
CLIENT := $(filter-out linewatch/server/ %__pycache__/,$(wildcard linewatch/*/)) $(wildcard linewatch/*.py)
DEMO_ARGS ?=
TEST_ARGS ?= --numprocesses 3 --dist loadfile --no-loadscope-reorder
BENCH_ARGS ?=
CONTAINER_ARGS ?=
FAULT_ARGS ?=
SOAK_ARGS ?=
RELEASE_ARGS ?=
PREVIOUS ?=
UPGRADE_ARGS ?=

.DEFAULT_GOAL := help
.PHONY: help demo docs test test-unit test-mqtt test-metrics test-browser test-containers test-faults test-upgrade soak lint \
        bench bench-feed bench-growth bench-gpu bench-webhooks bench-exports bench-detection bench-choices \
        bench-rescoring bench-rescoring-rows bench-statistics bench-page vendor lock release clean

help: ## what there is
	@awk 'BEGIN {FS = ":.*## "} /^[a-z-]+:.*## / {printf "  make %-22s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

$(READY): requirements.lock pyproject.toml linewatch/pyproject.toml
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --upgrade pip
	$(BIN)/python -m pip install --quiet --requirement requirements.lock
	$(BIN)/python -m pip install --quiet --no-deps --editable ./linewatch --editable .
	touch $(READY)

demo: $(READY) ## train, submit a burst of real images, print the verdicts, keep serving (DEMO_ARGS=--exit to end)
	$(BIN)/python -m linewatch.server.demo $(DEMO_ARGS)

test: $(READY) ## the tests, against a real PostgreSQL and a real Valkey (TEST_ARGS="tests/unit -k name" for some)
	$(BIN)/python -m pytest $(TEST_ARGS)

test-unit: $(READY) ## the tests that need no service
	$(BIN)/python -m pytest --numprocesses 2 --dist worksteal tests/unit

test-mqtt: $(READY) ## results over MQTT, against a real Mosquitto (Debian's package mosquitto)
	$(BIN)/python -m pytest tests/mqtt

test-metrics: $(READY) ## alerts and exported metrics, with Prometheus' promtool (Debian's package prometheus)
	$(BIN)/python -m pytest tests/metrics

test-browser: $(READY) ## the page in a real browser (Debian's package chromium); writes screenshots to .screenshots/
	$(BIN)/python -m pytest --numprocesses 2 --dist loadfile tests/browser

test-containers: $(READY) ## images and Compose in a Docker daemon, as root (tests/containers/setup.sh installs it on Debian)
	$(BIN)/python -m pytest -o timeout=3600 tests/containers $(CONTAINER_ARGS)

test-faults: $(READY) ## the crash suite: faults in running systems, with recovery times (FAULT_ARGS="-k broker" for some)
	$(BIN)/python -m pytest tests/faults $(FAULT_ARGS)

test-upgrade: $(READY) ## the previous release and this code side by side, and rolling upgrades (PREVIOUS=REF; the newest tag)
	PREVIOUS=$(PREVIOUS) $(BIN)/python -m pytest tests/upgrade $(UPGRADE_ARGS)

soak: $(READY) ## random faults under steady uploads for ten minutes (SOAK_ARGS="--seconds 3600 --seed 7")
	$(BIN)/python -m tests.faults.soak $(SOAK_ARGS)

docs: $(READY) ## the documentation site, in .site/
	$(BIN)/python -m mkdocs build --strict

lint: $(READY) ## style, types (of the client on Windows, too), layers, Dockerfile and Compose file
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/mypy --platform win32 --cache-dir .mypy_cache/windows $(CLIENT)
	$(BIN)/lint-imports
	$(BIN)/hadolint Dockerfile
	$(BIN)/check-jsonschema --builtin-schema vendor.compose-spec docker-compose.yml

$(PEERS): benchmarks/speed/requirements.txt $(READY)
	$(BIN)/python -m venv --clear --without-pip .bench
	$(BIN)/python -c "import sysconfig; print(sysconfig.get_path('purelib'))" > "$$(.bench/bin/python -c "import sysconfig; print(sysconfig.get_path('purelib'))")/linewatch.pth"
	$(BIN)/python -m pip --python .bench/bin/python install --quiet --no-deps --requirement benchmarks/speed/requirements.txt
	touch $(PEERS)

bench: $(PEERS) ## speed next to a bare loop, LitServe, Celery and the demo's style, half an hour (BENCH_ARGS=quick: 5 minutes)
	$(BIN)/python -m benchmarks.speed $(BENCH_ARGS)

bench-growth: $(READY) ## rate and latencies at 10,000 to a million stored inspections, memory, idle CPU (BENCH_ARGS="SIZE …")
	$(BIN)/python -m benchmarks.growth $(BENCH_ARGS)

bench-gpu: $(READY) ## a GPU's stages next to what its memory allows, and the whole system on it (BENCH_ARGS="BUNDLE" for yours)
	$(BIN)/python -m benchmarks.gpu $(BENCH_ARGS)

bench-feed: $(READY) ## a million results through the feed, and what a page costs as it grows (BENCH_ARGS="soak" or "pages")
	$(BIN)/python -m benchmarks.feed $(BENCH_ARGS)

bench-exports: $(READY) ## files of 200,000 inspections, and the memory that they take
	$(BIN)/python -m benchmarks.exports

bench-detection: $(READY) ## detectors on real images; BENCH_ARGS="DIR ..." adds folders in MVTec layout
	$(BIN)/python -m benchmarks.detection $(BENCH_ARGS)

bench-choices: $(READY) ## what `--architecture auto` chooses on real images; BENCH_ARGS="DIR ..." adds folders
	$(BIN)/python -m benchmarks.choices $(BENCH_ARGS)

bench-webhooks: $(READY) ## 10,000 webhooks to a receiver that fails 30 % of the time
	$(BIN)/python -m benchmarks.webhooks $(BENCH_ARGS)

bench-rescoring: $(READY) ## re-scoring of 20,000 images: rate, kills, the line (BENCH_ARGS="archive speed kill line")
	$(BIN)/python -m benchmarks.rescoring $(BENCH_ARGS)

bench-rescoring-rows: $(READY) ## a million stored results with new thresholds, and planned
	$(BIN)/python -m benchmarks.rescoring_rows $(BENCH_ARGS)

bench-statistics: $(READY) ## figures, listings and histograms over a day of a million inspections (BENCH_ARGS=N)
	$(BIN)/python -m benchmarks.statistics $(BENCH_ARGS)

bench-page: $(READY) ## the page over 50,000 inspections in a real browser: server times, frame times, paints (BENCH_ARGS=N)
	$(BIN)/python -m benchmarks.page $(BENCH_ARGS)

vendor: ## fetch the third-party files of the page anew (needs npm)
	bash api/page/vendor/update.sh

lock: $(READY) ## resolve the newest versions anew and pin them
	$(BIN)/uv pip compile pyproject.toml --all-extras --universal --python-version 3.11 --upgrade \
		--no-emit-package linewatch-client --no-emit-index-url --no-emit-find-links \
		--no-annotate --no-header --quiet --output-file requirements.lock

release: $(READY) ## commit, tag and build a release; pushes nothing (VERSION=0.2.0 RELEASE_ARGS="--images api worker")
	$(BIN)/python -m release $(VERSION) $(RELEASE_ARGS)

clean: ## remove what make has set up here
	rm -rf $(VENV) .bench .mypy_cache .ruff_cache .pytest_cache .import_linter_cache .hypothesis
