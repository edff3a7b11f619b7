# The commands of a working day; each is one line of CMake, CTest or a script that can be run by hand.
# PRESET chooses the build: release (default), debug, asan, tsan. JOBS: parallel compilations.
PRESET ?= release
JOBS ?= $(shell nproc)
STARTED := $(shell date +%s)

.PHONY: help deps build demo test bench fuzz fmt lint cross-check clean
.DEFAULT_GOAL := help
.NOTPARALLEL:  # dependencies before the build, the build before the tests

help:  ## this list
	@sed -n 's/^\([a-z-]*\):.*  ## /\1\t/p' $(firstword $(MAKEFILE_LIST)) | expand -t 14

deps:  ## install the Debian packages that are missing (asks for root only then)
	@scripts/install-deps

build:  ## build build/release/qkv and the tests
	cmake --preset $(PRESET) -Wno-dev
	cmake --build --preset $(PRESET) -j $(JOBS)

demo: deps build  ## a language model's whole life in a few minutes
	@scripts/demo

test: deps build  ## build and run every test
	@ctest --preset $(PRESET); status=$$?; echo "make test: $$(($$(date +%s) - $(STARTED))) s in all"; exit $$status

bench: build  ## measure this machine, and the peers that are installed on it
	@scripts/bench

fuzz:  ## feed damaged files to every reader, SECONDS (60) each
	@scripts/install-deps --fuzz
	@scripts/fuzz $(or $(SECONDS),60)

fmt:  ## format every source file in place
	@scripts/format --fix

lint: build  ## check formatting and run clang-tidy on changed files (ALL=1: on every file)
	@scripts/format
	@scripts/tidy $(PRESET) $(if $(ALL),--all)

cross-check:  ## compile the kernels for aarch64
	@scripts/cross-check

clean:  ## remove every build folder
	rm -rf build
