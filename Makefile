# The two commands of the README. Everything else is CMake: see CMakePresets.json and CONTRIBUTING.md.

MODEL ?=
PROMPT ?=
MEMORY ?=

.PHONY: run test build setup setup-tests

## Installs what is missing, builds, and starts a chat with MODEL (a .gguf file), or with the model that ships here.
run: build
	@scripts/run "$(MODEL)" "$(MEMORY)"

## Installs what is missing, builds, and runs all tests.
test: setup-tests build
	ctest --preset release --no-tests=error

build: setup
	cmake --preset release
	cmake --build --preset release

setup:
	@scripts/setup

setup-tests:
	@scripts/setup --tests
