# Every target that runs the project sets it up first: tools/setup.sh, which does nothing the second time.
#   make demo DATA=/path/to/pictures    make test ARGS="-k resume"    make PYTHON=python3.12 test
.DEFAULT_GOAL := help
.PHONY: help setup demo test lint bench sanitize fuzz emulate clean
export DATA PYTHON

help:  ## what there is
	@sed -n 's/^\([a-z]*\):.*## /  make \1\t/p' Makefile | expand -t 18

setup:  ## .venv with the project and all it needs, and nothing else
	@tools/setup.sh test

demo:  ## the main job on real photographs: profile, what-if, coordl, profile, table (DATA=folder of yours)
	@tools/setup.sh demo
	@.venv/bin/python -m demo

test:  ## the tests (ARGS="..." goes to pytest, which then runs them one after the other)
	@tools/setup.sh test
	@tools/test.sh $(ARGS)

lint:  ## ruff and mypy
	@tools/setup.sh dev
	@.venv/bin/python -m ruff check .
	@.venv/bin/python -m ruff format --check .
	@.venv/bin/python -m mypy

bench:  ## every benchmark, one after the other
	@tools/setup.sh test
	@set -e; for question in $(wildcard benchmarks/*.py); do .venv/bin/python "$$question"; done

sanitize:  ## the native core and its tests under sanitizers
	@tools/setup.sh test
	@tools/sanitize.sh

fuzz:  ## the fuzzers, SECONDS=600 each (ARGS="jpeg packed" chooses; crash inputs in build/fuzz/crashes)
	@tools/setup.sh test
	@SECONDS=$(or $(SECONDS),600) tools/fuzz.sh $(ARGS)

emulate:  ## tests of the vector kernels of all instruction sets on this CPU (needs SIMDe: libsimde-dev)
	@tools/setup.sh test
	@tools/emulate.sh $(ARGS)

clean:  ## remove .venv, .venv-peers, builds and caches of this tree (the pictures stay in the user's cache)
	@rm -rf .venv .venv-peers build dist reports .pytest_cache .mypy_cache .ruff_cache .hypothesis *.egg-info
	@find . -name __pycache__ -type d -prune -exec rm -rf {} +
