# The commands of the project. `make` alone lists them. Nothing here needs more than make, Python >= 3.11 and pip.

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
# What the virtual cluster needs of the system; everything else comes with pip.
PACKAGES := mmdebstrap systemd-container iproute2 nftables openssh-client python3-venv patch

.DEFAULT_GOAL := help
.PHONY: help setup packages demo test test-gpu test-machine check check-kernel bench-kernel bench-model bench-optim format lab-up lab-down wheel clean

help: ## list the targets
	@grep -E '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | awk -F ':.*## ' '{printf "  make %-12s %s\n", $$1, $$2}'

setup: packages $(VENV)/installed ## make .venv with the pinned versions

packages: # missing system packages: installed when root asks, named otherwise
	@missing=""; for p in $(PACKAGES); do \
	  dpkg-query -W -f '$${Status}' $$p 2>/dev/null | grep -q 'ok installed' || missing="$$missing $$p"; done; \
	if [ -z "$$missing" ]; then exit 0; \
	elif [ "$$(id -u)" = 0 ]; then echo "installing:$$missing"; \
	  apt-get update -qq && DEBIAN_FRONTEND=noninteractive apt-get install -y -qq $$missing >/dev/null; \
	else echo "for the virtual cluster: sudo apt-get install$$missing"; fi

$(VENV)/installed: pyproject.toml kanctl/constraints.txt
	@$(PYTHON) -c 'import sys; v = sys.version_info; sys.exit(0 if v >= (3, 11) else f"wanted Python 3.11 or newer, found {v[0]}.{v[1]}: make setup PYTHON=python3.11")'
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	@echo "installing the pinned packages into $(VENV) (one to two minutes)"
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c kanctl/constraints.txt -e '.[dev]'
	@touch $@

demo: setup ## the main job: virtual cluster up, provisioned, healthy, a model trained on it, sampled
	@$(BIN)/python -m kanctl.cli.demo

# Target-specific: only the tests run programs that a model wrote, and build a kernel's small stand-in.
test: PACKAGES += bubblewrap bc bison cpio debhelper dwarves flex kmod libelf-dev libssl-dev rsync
test: setup ## all tests that this machine can run in minutes (the lab's need root)
	@OMP_NUM_THREADS=1 $(BIN)/python -m pytest -q -m "not machine"

# Target-specific: only the kernel's own configuration tools need these. It downloads two kernel sources once (320 MB).
check-kernel: PACKAGES += make gcc flex bison libc6-dev
check-kernel: setup ## every profile against the Kconfig of 6.12 and 7.3; a line that is not taken fails
	@for profile in low-latency throughput inference lab; do \
	  $(BIN)/kanctl kernel config --profile $$profile --forward 7.3 || exit 1; done

# The tests of a GPU need nothing that other tests share, so that a machine with the trainer's packages alone runs them.
test-gpu: setup ## the tests of kernels and training that need NVIDIA GPUs, of which they use one or two
	@$(BIN)/python -m pytest -q --confcutdir=tests/gpu tests/gpu

# Target-specific: only these tests need QEMU.
test-machine: PACKAGES += qemu-system-x86 qemu-utils e2fsprogs
test-machine: setup ## the tests that boot kernels in QEMU machines: root, half an hour
	@OMP_NUM_THREADS=1 $(BIN)/python -m pytest -q -m machine tests/machine

# The figures of docs/kernel.md: BUNDLE is what `kanctl kernel build` printed. Half an hour of emulated boots.
bench-kernel: PACKAGES += qemu-system-x86 busybox-static rt-tests cpio kmod xz-utils gcc libc6-dev
bench-kernel: setup ## compare BUNDLE=folder with the distribution's kernel, counted in instructions
	$(BIN)/kanctl kernel compare stock:6.12 $(BUNDLE) --each-option \
	  --plot docs/measured/kernel-low-latency.svg --out docs/measured/kernel-low-latency.json

# The table of docs/results.md; TEXT is a text file. Cut off, or with --minutes, the same line goes on.
bench-model: setup ## compare every component of the model with a GPT of as many parameters: TEXT=file
	$(BIN)/python -m kanctl.trainer.bench.model --text $(TEXT) --out bench-model.json $(ARGS)

# Likewise the table of optimisers.
bench-optim: setup ## compare Kalman's updates of weights with tuned AdamW and Muon: TEXT=file
	$(BIN)/python -m kanctl.trainer.bench.optim --text $(TEXT) --out bench-optim.json $(ARGS)

check: setup ## format, lint, types, ansible-lint, yamllint
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/yamllint --strict playbooks inventory .yamllint
	cd playbooks && PATH="$(CURDIR)/$(BIN):$$PATH" ansible-lint --offline -q -c ../.ansible-lint

format: setup ## rewrite the Python files in the house's format
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

lab-up: setup ## bring up the virtual cluster
	$(BIN)/kanctl lab up

lab-down: setup ## take it down
	$(BIN)/kanctl lab down

wheel: setup ## dist/kanctl-*.whl
	$(BIN)/python -m build --no-isolation --wheel --outdir dist

clean: ## remove what the other targets made (not the caches of the user)
	rm -rf $(VENV) dist build .pytest_cache .mypy_cache .ruff_cache
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
