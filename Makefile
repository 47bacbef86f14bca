# The two commands to know: `make run` shows what forestall does, `make test` runs every test.

# Where the real Prometheus, Alertmanager and node_exporter of the tests are unpacked.
export FORESTALL_PARTS ?= $(CURDIR)/target/parts
# Where the browser of the page's test, and what drives it, is found.
export FORESTALL_BROWSER ?= $(CURDIR)/target/browser
# Where moto, which answers as AWS does, is found.
export FORESTALL_CLOUD ?= $(CURDIR)/target/cloud

.PHONY: help run test mutants bench bench-forecast bench-plan bench-query lint fmt parts browser cloud toolchain

help:
	@echo 'make run    the demo: a simulated fleet with and without forestall, in minutes (ARGS="--seed 2 --once")'
	@echo 'make test   all tests, with the real Prometheus, Alertmanager and node_exporter and a browser, fetched on first use'
	@echo 'make mutants  plants one fault after the other in the planner, acting and the journal; a test must fail for each (ARGS="07 24")'
	@echo 'make bench  remote-write ingestion beside the real Prometheus (ARGS="--series 100000 --rounds 5")'
	@echo 'make bench-forecast  forecasts beside statsforecast, on made-up series or yours (ARGS="--data FILE --models")'
	@echo 'make bench-plan  how long a plan takes for 10 000 components on 1000 nodes'
	@echo 'make bench-query  CPU time of queries beside the real Prometheus and VictoriaMetrics (ARGS="--targets 123 --rounds 20")'
	@echo 'make lint   format, clippy, documentation, shell scripts, Dockerfile and compose file'
	@echo 'make fmt    puts the code into its format'

run: toolchain
	cargo run --locked --release -- demo $(ARGS)

# The simulator's ten thousand seeds go first and alone, on all cores: they are to take less than a minute.
seeds = sim::no_seed_breaks_an_invariant
test: toolchain parts browser cloud
	cargo test --locked --test it -- $(seeds)
	cargo test --locked -- --skip $(seeds)

mutants: toolchain
	tests/mutants/run.sh $(ARGS)

bench: toolchain parts
	cargo bench --locked --bench ingest -- $(ARGS)

bench-forecast: toolchain target/forecast-bench/ready
	cargo bench --locked --bench forecast -- $(ARGS)

bench-query: toolchain parts
	cargo bench --locked --bench query -- $(ARGS)

bench-plan: toolchain
	cargo bench --locked --bench plan

# statsforecast in an environment of its own.
target/forecast-bench/ready: benches/forecast/requirements.txt
	python3 -m venv target/forecast-bench
	target/forecast-bench/bin/pip install --quiet --requirement benches/forecast/requirements.txt
	touch $@

lint: toolchain
	cargo fmt --check
	cargo clippy --locked --all-targets -- -D warnings
	RUSTDOCFLAGS='-D warnings' cargo doc --locked --no-deps
	tests/setup/lint-files.sh

fmt:
	cargo fmt

# Real programs for the tests, unpacked without touching the system.
parts:
	tests/setup/fetch.sh '$(FORESTALL_PARTS)'

# An AWS that checks signatures.
cloud:
	tests/setup/cloud.sh '$(FORESTALL_CLOUD)'

# A browser, and the packages that drive it.
browser:
	tests/setup/browser.sh '$(FORESTALL_BROWSER)'

# A Rust toolchain that is new enough, and a C compiler.
toolchain:
	@tests/setup/toolchain.sh
