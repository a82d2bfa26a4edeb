# The recipes that people and CI run. `make` alone lists them.
SHELL := bash
.SHELLFLAGS := -euo pipefail -c
.ONESHELL:
.DELETE_ON_ERROR:
MAKEFLAGS += --no-print-directory

# `make -j2 test` is for recipes; cargo decides for itself how much it does at once.
WITHOUT_MAKE := env --unset MAKEFLAGS --unset MFLAGS
CARGO ?= $(WITHOUT_MAKE) cargo
PYTHON ?= python3
# Activated by path alone: every tool of the Python side comes from here, at the version that its requirements name.
VENV := .venv
IN_VENV := $(WITHOUT_MAKE) VIRTUAL_ENV="$(CURDIR)/$(VENV)" PATH="$(CURDIR)/$(VENV)/bin:$$PATH"
REQUIREMENTS := tests/requirements.txt tests/strangers/requirements.txt $(wildcard crates/py-bindings/requirements.txt)
EXAMPLE := examples/alma9-k3s-optimized

# $(call lacks,WHAT IS NOT DONE,WHAT IS MISSING,HOW TO GET IT): one visible line, and an error where CI=true.
lacks = { printf 'SKIPPED  %s: no %s here. To get it: %s\n' '$(1)' '$(2)' '$(3)' >&2; [[ "$${CI:-}" != true ]] || exit 1; }
make_venv = $(WITHOUT_MAKE) $(MAKE) --silent --no-print-directory $(VENV)/.ready
# $(call need_venv,WHAT IS NOT DONE): the venv is there, or is made now, or its lack is said.
need_venv = $(PYTHON) -c 'import ensurepip, venv' 2>/dev/null || { $(call lacks,$(1),Python module venv,apt-get install python3-venv); exit 0; }; $(make_venv)

.PHONY: help
help: ## Lists the recipes
	@sed -n 's/^\([a-z][a-z-]*\):.*## /\1|/p' Makefile | while IFS='|' read -r name what; do printf '  %-14s %s\n' "$$name" "$$what"; done

.PHONY: demo
demo: ## Builds the example folder into a template, on an emulated Proxmox VE with a simulated guest
	@$(CARGO) run --package k3simage-cli -- build $(EXAMPLE) --emulator --manifest target/demo/manifest.json

.PHONY: test
test: fmt-check guard lint rust-test doc scripts kickstart stand-in-test seal-check python ## Runs every check and every test
	@# These build the program in another way, which would take it from under the Rust tests where recipes run at once.
	$(MAKE) validate examples strangers
	echo 'make test: all passed'

.PHONY: fmt
fmt: ## Formats the Rust and Python code
	@$(CARGO) fmt --all
	$(call need_venv,Python formatting)
	$(IN_VENV) ruff format crates/py-bindings examples/python tests stand-in stand-in/k3s/k3s seal-check seal-check/seal-check

.PHONY: fmt-check
fmt-check: ## Is the Rust code formatted?
	@$(CARGO) fmt --all -- --check

.PHONY: lint
lint: ## Clippy, warnings are errors
	@$(CARGO) clippy --quiet --workspace --all-targets -- -D warnings

.PHONY: rust-test
rust-test: ## Rust tests and doctests
	@for tool in xorriso isoinfo; do
	    command -v "$$tool" >/dev/null || $(call lacks,comparison of ISO files,xorriso or isoinfo,apt-get install xorriso genisoimage)
	done
	for tool in qemu-system-x86_64 qemu-img; do
	    command -v "$$tool" >/dev/null || $(call lacks,tests with real guests,'"$$tool"',apt-get install qemu-system-x86 qemu-utils ovmf)
	done
	$(CARGO) test --quiet --workspace --no-fail-fast

.PHONY: doc
doc: ## API documentation, warnings are errors
	@RUSTDOCFLAGS='-D warnings' $(CARGO) doc --quiet --workspace --no-deps

.PHONY: guard
guard: ## What must not be in the tree: ignored doctests and tests, unfinished code
	@status=0
	none() { git grep -nE "$$1" -- "$$2" || { [ $$? -eq 1 ] && return; exit 1; }; echo 'guard: the lines above have no place here' >&2; status=1; }
	none '^[[:space:]]*//[/!][[:space:]]*```.*ignore|#\[ignore|todo!\(|unimplemented!\(' '*.rs'
	none 'pytest\.mark\.(skip|xfail)' '*.py'
	exit $$status

.PHONY: scripts
scripts: ## The guest scripts: shellcheck, and their tests in a folder as root
	@$(call need_venv,checks of the guest scripts)
	$(IN_VENV) ruff check --quiet tests
	$(IN_VENV) ruff format --quiet --check tests
	$(IN_VENV) shellcheck scripts/*.sh $(EXAMPLE)/scripts/*.sh tests/strangers/packer/scripts/*.sh seal-check/tests/fixtures/*.sh .ci/run
	$(IN_VENV) pytest -q tests/guest --ignore tests/guest/test_kickstart.py --ignore tests/guest/test_rendered_kickstart.py --ignore tests/guest/test_sealed_image.py

.PHONY: kickstart
kickstart: ## The kickstarts, read by pykickstart
	@$(call need_venv,checks of the kickstarts)
	$(IN_VENV) pytest -q tests/guest/test_kickstart.py tests/guest/test_rendered_kickstart.py

.PHONY: stand-in
stand-in: ## Builds the stand-in for AlmaLinux's installation medium (as root; see stand-in/README.md)
	@stand-in/build

.PHONY: stand-in-test
stand-in-test: ## The stand-in's scripts and installer, without building it
	@$(call need_venv,checks of the stand-in)
	$(IN_VENV) ruff check --quiet stand-in stand-in/k3s/k3s
	$(IN_VENV) ruff format --quiet --check stand-in stand-in/k3s/k3s
	grep -rlE --exclude-dir=__pycache__ '^#!(/bin/(ba)?sh|/usr/bin/env bash|/bin/busybox sh)' stand-in | $(IN_VENV) xargs shellcheck
	$(IN_VENV) pytest -q stand-in/tests

# These lie where only root's PATH leads.
DISK_MAKERS := mke2fs mkfs.xfs mkfs.vfat mcopy mkswap sfdisk debugfs xfs_db qemu-img qemu-io grub-fstest

.PHONY: seal-check
seal-check: ## The checker of sealed disks, on disks made for it and on what seal.sh leaves
	@for tool in $(DISK_MAKERS); do
	    PATH="$$PATH:/usr/sbin:/sbin" command -v "$$tool" >/dev/null || { $(call lacks,the checker of sealed disks,'"$$tool"',apt-get install e2fsprogs xfsprogs dosfstools mtools fdisk qemu-utils grub-common); exit 0; }
	done
	$(call need_venv,the checker of sealed disks)
	$(IN_VENV) ruff check --quiet seal-check seal-check/seal-check
	$(IN_VENV) ruff format --quiet --check seal-check seal-check/seal-check
	$(IN_VENV) pytest -q seal-check/tests
	$(IN_VENV) pytest -q tests/guest/test_sealed_image.py

.PHONY: validate
validate: ## The example folder, by the command's own check
	@$(CARGO) run --quiet --package k3simage-cli -- validate $(EXAMPLE)

.PHONY: examples
examples: ## Runs every Rust example against the emulator
	@for file in examples/*.rs; do
	    [[ -e "$$file" ]] || { echo 'examples: there is none in examples/*.rs' >&2; exit 1; }
	    name="$${file##*/}"
	    echo "example $${name%.rs}"
	    $(CARGO) run --quiet --package k3simage-cli --example "$${name%.rs}" -- --emulator
	done

.PHONY: python
python: ## The Python package: built, checked, tested, its examples run
	@$(call need_venv,the Python package)
	$(IN_VENV) maturin develop --quiet --manifest-path crates/py-bindings/Cargo.toml
	cd crates/py-bindings
	$(IN_VENV) ruff check . ../../examples/python
	$(IN_VENV) ruff format --check . ../../examples/python
	$(IN_VENV) mypy python ../../examples/python
	$(IN_VENV) mypy tests
	$(IN_VENV) python -m mypy.stubtest k3simage --allowlist tests/stubtest-allowlist.txt
	$(IN_VENV) pytest -q
	# The wheel as users get it: installed alone, it imports and carries the command.
	cd ../..
	rm -rf target/wheel
	$(IN_VENV) maturin build --quiet --manifest-path crates/py-bindings/Cargo.toml --out target/wheel
	$(PYTHON) -m venv target/wheel/venv
	target/wheel/venv/bin/python -m pip install --quiet --disable-pip-version-check --no-index target/wheel/*.whl
	cd target/wheel
	venv/bin/python -c 'import k3simage; print(k3simage.ImageSpec(node="pve"))'
	venv/bin/k3simage --version

.PHONY: strangers
strangers: ## Programs that others wrote drive the emulator: proxmoxer, Ansible, Packer, two from npm
	@for tool in packer node npm xorriso; do
	    command -v "$$tool" >/dev/null || { $(call lacks,the clients of others,packer or node or npm or xorriso,apt-get install packer nodejs npm xorriso); exit 0; }
	done
	$(call need_venv,the clients of others)
	$(MAKE) target/strangers/.ready
	$(CARGO) build --quiet --package k3simage-cli
	$(IN_VENV) pytest -q tests/strangers

.PHONY: faults
faults: ## Every fault at every call of a build, then 1,000 random runs (CASE='...' is one alone, CASE=random are those alone, CASE=ssh, ticket, agent, replace, exchange all of a kind; SEED=... repeats them)
	@K3SIMAGE_FAULTS="$${CASE:-all}" $${SEED:+env K3SIMAGE_FAULTS_SEED="$$SEED"} \
	    $(CARGO) test --quiet --release --package k3simage-cli --test faults -- --nocapture whatever_breaks

.PHONY: bench
bench: ## Prints the figures of docs/benchmarks.md, measured now
	@command -v curl >/dev/null || { $(call lacks,the benchmark,curl,apt-get install curl); exit 0; }
	$(CARGO) bench --quiet --package k3simage-cli --bench figures

.PHONY: bench-guest
bench-guest: ## Prints the figures that need a real guest, from the stand-in medium
	@command -v scp >/dev/null || { $(call lacks,the figures of a guest,scp,apt-get install openssh-client); exit 0; }
	program="$$($(CARGO) bench --package k3simage-cli --bench figures --no-run --message-format json | sed -n 's/.*"executable":"\([^"]*figures-[^"]*\)".*/\1/p')"
	GUEST_BENCH="$$program" $(MAKE) e2e E2E='figures' E2E_SHOW=-s

# All four ways by default; `make e2e E2E=bios` is one, and E2E=bad the builds that cannot end well. Two guests at once are what two cores can do.
E2E ?= bios or uefi or http or reboot
E2E_JOBS ?= 2

.PHONY: e2e
e2e: ## Whole builds of the example on real guests, from the stand-in medium, four ways (docs/guide/real-machine.md)
	@for tool in qemu-system-x86_64 qemu-img; do
	    command -v "$$tool" >/dev/null || { $(call lacks,whole builds on real guests,qemu-system-x86_64 or qemu-img,apt-get install qemu-system-x86 qemu-utils ovmf); exit 0; }
	done
	[[ -e /usr/share/OVMF/OVMF_CODE_4M.fd ]] || { $(call lacks,whole builds on real guests,OVMF,apt-get install ovmf); exit 0; }
	stand-in/build || { $(call lacks,whole builds on real guests,stand-in medium,make stand-in (as root)); exit 0; }
	$(call need_venv,whole builds on real guests)
	$(CARGO) build --quiet --workspace --bin k3simage
	E2E_JOBS=$(E2E_JOBS) E2E_RESULTS="$(CURDIR)/target/e2e" $(IN_VENV) pytest -q $(E2E_SHOW) tests/e2e -k '$(E2E)'

.PHONY: conformance
conformance: ## Client and emulator against the recorded API of Proxmox VE
	@mkdir -p target/conformance
	run() { # NAME PACKAGE TARGET..: what its tests print is shown; fails when one fails, or when none ran.
	    local log="target/conformance/$$1.log"
	    printf '%s\n' "$$1"
	    # One thread, so that the lines of two tests do not mix.
	    DIFFERENCES=1 $(CARGO) test --quiet --package "$${@:2}" -- --nocapture --test-threads 1 2>&1 \
	        | tee "$$log" | sed -E 's/^\.+([a-z0-9])/\1/; /^(running [0-9]+ tests?|\.+|)$$/d'
	    grep -qE '^test result: ok\. [1-9]' "$$log" || { echo "conformance: no test of $$1 ran" >&2; exit 1; }
	}
	run client-requests k3simage-proxmox-client --lib request::conformance
	run client-calls k3simage-proxmox-client --test conformance
	run client-answers k3simage-proxmox-client --lib transport::conformance
	run emulator k3simage-pve-emulator --test conformance
	for side in client-answers emulator; do
	    grep -hoE '[0-9]+ of [0-9]+ exchanges agree$$' "target/conformance/$$side.log" | sed "s/^/$${side%-answers}: /"
	done

# Every target by default; `make fuzz FUZZ_SECONDS=60 FUZZ_TARGETS=iso` is a short look at one.
FUZZ_SECONDS ?= 600
FUZZ_TARGETS ?= $(basename $(notdir $(wildcard fuzz/fuzz_targets/*.rs)))
FUZZ_JOBS ?= 2

.PHONY: fuzz
fuzz: ## Feeds the parsers hostile input, FUZZ_SECONDS=600 each (nightly compiler)
	@$(CARGO) +nightly fuzz --version >/dev/null 2>&1 || { $(call lacks,fuzzing,a nightly compiler with cargo-fuzz,rustup toolchain install nightly; cargo install --locked cargo-fuzz); exit 0; }
	$(CARGO) +nightly fuzz build --sanitizer none
	printf '%s\n' $(FUZZ_TARGETS) | xargs --max-procs $(FUZZ_JOBS) --replace=TARGET nice -n 10 \
	    $(CARGO) +nightly fuzz run --sanitizer none TARGET -- -max_total_time=$(FUZZ_SECONDS) -timeout=120 -rss_limit_mb=1024 -print_final_stats=1

.PHONY: deny
deny: ## Licences, sources and known faults of the dependencies
	@command -v cargo-deny >/dev/null || { $(call lacks,check of the dependencies,cargo-deny,cargo install --locked cargo-deny); exit 0; }
	$(CARGO) deny check
	$(CARGO) deny --manifest-path fuzz/Cargo.toml --config deny.toml check

.PHONY: sync-example
sync-example: ## Copies scripts/ into the example folder
	@install -m 0755 scripts/*.sh $(EXAMPLE)/scripts/

.PHONY: clean
clean: ## Removes what was built, and the Python environment
	@$(CARGO) clean
	rm -rf $(VENV) tests/strangers/npm/node_modules

# Recipes that run at once share one environment: it is made before the first of them. Where it cannot be made, each says what it leaves out.
.PHONY: venv
venv:
	@if $(PYTHON) -c 'import ensurepip, venv' 2>/dev/null; then $(make_venv); fi

scripts kickstart stand-in-test seal-check python strangers: | venv

# Made anew when a requirement changes; the marker is written last, so half an environment is never used.
$(VENV)/.ready: $(REQUIREMENTS)
	@rm -rf $(VENV)
	$(PYTHON) -m venv $(VENV)
	$(VENV)/bin/python -m pip install --quiet --disable-pip-version-check $(addprefix --requirement ,$(REQUIREMENTS))
	touch $@

# Ansible's collection comes out of the package that carries a hundred of them, since Galaxy is one more place to depend on.
target/strangers/.ready: $(wildcard tests/strangers/ansible.txt tests/strangers/collection.py tests/strangers/npm/package-lock.json) $(VENV)/.ready
	@rm -rf target/strangers
	mkdir -p target/strangers
	$(VENV)/bin/python -m pip download --quiet --disable-pip-version-check --no-deps --require-hashes --requirement tests/strangers/ansible.txt --dest target/strangers
	$(VENV)/bin/python tests/strangers/collection.py target/strangers/*.whl target/strangers
	rm target/strangers/*.whl
	cd tests/strangers/npm
	npm ci --silent
	cd ../../..
	touch $@
