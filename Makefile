# provision: `make demo` sets up all and runs the main job; `make test` sets up all and tests all.
PROVISION = .venv/bin/provision
export PATH := $(CURDIR)/.venv/bin:$(PATH)

.PHONY: demo test test-xen check setup test-setup image bench bench-vsphere bench-hyperv bench-streams compare clean

demo: image
	tools/demo

test: test-setup image check
	tools/test

test-xen: test-setup image
	.venv/bin/python -m pytest -m xen tests/live/test_xen_cut.py tests/live/test_xen_job.py tests/contract
	.venv/bin/python -m pytest -m xen tests/live/test_xen_hvm.py

check: setup
	.venv/bin/ruff check .
	.venv/bin/ruff format --check .
	.venv/bin/mypy
	.venv/bin/ansible-lint --offline -q playbooks

setup:
	@tools/setup

test-setup:
	@tools/setup test

image: setup
	$(PROVISION) image build

bench: image
	.venv/bin/python -m tests.bench

bench-vsphere: test-setup
	.venv/bin/python -m tests.bench.vsphere

bench-hyperv: test-setup
	.venv/bin/python -m tests.bench.hyperv

bench-streams: test-setup
	.venv/bin/python -m tests.bench.streams

compare: image
	.venv/bin/python -m tests.bench.compare

clean:
	rm -rf .venv .mypy_cache .pytest_cache .ruff_cache .hypothesis
