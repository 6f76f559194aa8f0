# Guessable verbs; `make help` lists them. What is long lives in .ci/.

PYTHON ?= /usr/bin/python3
PREFIX ?= /usr/local
CARGO ?= cargo
export PYTHON CARGO

EXT := $(if $(filter Darwin,$(shell uname -s)),dylib,so)
LIBRARY := dist/liblitestream.$(EXT)

.PHONY: help deps build demo test test-all test-bindings test-sqlite test-sanitize test-fuzz test-deny bench install clean

help: ## lists the verbs
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/^([a-z-]+):.*## /\1\t/' | expand -t 12

deps: ## checks for the tools that the build and the tests need; installs what is missing where apt-get may
	@.ci/deps.sh

build: deps ## builds the extension: dist/liblitestream.so
	$(CARGO) build --release --locked
	@.ci/check-symbols.sh target/release/liblitestream.$(EXT)
	@mkdir -p dist
	@cp target/release/liblitestream.$(EXT) $(LIBRARY).new
	@strip $(if $(filter dylib,$(EXT)),-x) $(LIBRARY).new
	@mv $(LIBRARY).new $(LIBRARY)
	@echo "$(LIBRARY): $$(wc -c < $(LIBRARY) | tr -d ' ') bytes"

demo: build ## replicates a database on file://, looks into the replica, restores now and then
	@.ci/demo.sh $(LIBRARY)

test: build ## everything, the random suites in a sampled size; SUITES="sql model" runs some
	@.ci/test.sh

test-all: build ## everything, with more seeds, more rounds and all combinations
	@LITESTREAM_TEST_FULL=1 .ci/test.sh

test-bindings: build ## the README's program in every host, those that take long to install too
	@.ci/deps.sh all-bindings
	@$(PYTHON) sql-tests/bindings/run --all

test-sqlite: build ## SQLite's own tests, all of them: nothing replicated, then everything in WAL mode
	@.ci/deps.sh sqlite
	@$(PYTHON) sql-tests/sqlite/run --all

test-sanitize: ## AddressSanitizer under the suites that load the library, ThreadSanitizer under its own tests; needs nightly
	@.ci/sanitize.sh

test-fuzz: ## each fuzz target for FUZZ_SECONDS (3600); needs a nightly toolchain
	@.ci/fuzz.sh $(FUZZ_SECONDS)

test-deny: ## advisories, licences, bans and sources of the dependencies; needs cargo-deny
	@$(CARGO) deny --config .ci/deny.toml check

bench: build ## bare SQLite, this library and the real Litestream side by side; benches/run --list names the measures
	@.ci/deps.sh peers
	@$(PYTHON) benches/run

install: build ## copies the library and its header below PREFIX (/usr/local); DESTDIR is honoured
	@.ci/install.sh $(LIBRARY) $(PREFIX)

clean: ## removes what was built; .cache (the peers that the tests use) stays
	$(CARGO) clean
	rm -rf dist
