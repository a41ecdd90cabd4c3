# `make run` and `make test` are all that is needed; both do their own set-up.
PRESET ?= cpu
PORT   ?= 8080
MODEL  ?= models/tiny
PROMPT ?= Once upon a time
export PORT MODEL PROMPT

WORKER = build/cpu/bin/llorch-cpu-candled

.PHONY: help run test deps build ci-extra format clean
help:
	@echo "make run   build the CPU worker, start it on $(MODEL), stream an answer"
	@echo "           MODEL=dir PROMPT='...' PORT=8080"
	@echo "make test  build and run all tests"
	@echo "make deps  install the packages of PRESET=cpu|cuda|metal"
	@echo "make build build PRESET=cpu|fake|... into build/\$$PRESET"

run:
	@tools/deps cpu
	cmake --preset cpu
	cmake --build --preset cpu --target llorch-cpu-candled
	@tools/run $(WORKER)

test:
	@tools/deps cpu
	cmake --preset cpu
	cmake --build --preset cpu
	ctest --test-dir build/cpu --output-on-failure --parallel 2

deps:
	@tools/deps $(PRESET)

build:
	@tools/deps $(PRESET)
	cmake --preset $(PRESET)
	cmake --build --preset $(PRESET)

ci-extra:
	@tools/ci_extra

format:
	git ls-files '*.cc' '*.cu' '*.h' | xargs clang-format -i

clean:
	rm -rf build
