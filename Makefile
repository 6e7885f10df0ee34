# `make demo` and `make test` do all the set-up themselves. Settings, as in `make test VENV=/path/to/env`:
PYTHON ?= python3   # the interpreter that makes the environment, 3.10 or newer
VENV ?= .venv       # the environment; made if it does not exist
JOBS ?= 3           # test processes; many tests wait, so two cores serve three

# Make keeps the blanks before a comment.
override VENV := $(strip $(VENV))
BIN := $(VENV)/bin
# The first is made when frdet runs, the second when the tools of a developer are there too.
RUNNING := $(VENV)/.frdet-running
INSTALLED := $(VENV)/.frdet-installed

# Images of containers often set this. Each of the hundred processes that the tests start would then compile torch anew.
unexport PYTHONDONTWRITEBYTECODE

.PHONY: help install demo test quick bench sanitized test-compat fuzz lint style docs warnings format sanitize browser clean
.DELETE_ON_ERROR:

help:
	@echo 'make demo     install, draw a small data set, train on it, evaluate, write a report and pictures: five minutes'
	@echo 'make test     install, lint, run every test'
	@echo 'make quick    the tests of single parts, in two minutes'
	@echo 'make test-compat  the core of the tests with other releases of MMEngine, and with the newest PyTorch'
	@echo 'make fuzz     the tests with drawn input, a hundred times as long'
	@echo 'make bench    short measurements of operators, training, evaluation, memory and start-up, and a study of ablations'
	@echo 'make install  make $(VENV) with the tested versions of everything, and frdet itself (editable)'
	@echo 'make lint     style, spelling, types, import arrows, documentation without warnings'
	@echo 'make format   rewrite the sources in the style that lint checks'
	@echo 'make docs     the documentation as HTML, in docs/_build/html'
	@echo 'make sanitize the operators under AddressSanitizer and UndefinedBehaviorSanitizer'
	@echo 'make clean    remove what the targets above wrote, except $(VENV)'

install: $(INSTALLED)

# uv installs several times as fast as pip. Where it cannot be had, or fails, pip installs. uv does not read pip's settings,
# so it is left out where these name another index. Modules are compiled at their first import, which few of them see.
define install
	@$(BIN)/uv pip install --quiet --no-cache --python $(BIN)/python -c constraints.txt $(1) 2> /dev/null \
	  || $(BIN)/python -m pip install --quiet --no-compile -c constraints.txt $(1)
endef

# torch comes first and build isolation is off, so that what is compiled is compiled against the torch that will run it.
# Running needs CUDA kernels only where there is a GPU. The tests see them wherever there is nvcc.
$(RUNNING): export FRDET_CUDA ?= $(if $(shell nvidia-smi -L 2> /dev/null),,0)
$(RUNNING): setup.py pyproject.toml constraints.txt $(wildcard ops/* ops/*/*)
	@$(PYTHON) -c 'import sys; v = sys.version_info; sys.exit(v < (3, 10) and f"Found Python {v[0]}.{v[1]}, frdet needs 3.10 or newer: make install PYTHON=/path/to/python3")'
	@echo 'Installing PyTorch and frdet into $(VENV): about 6 GB, in a few minutes'
	@test -x $(BIN)/pip || $(PYTHON) -m venv $(VENV)
	@test -n "$$PIP_INDEX_URL$$($(BIN)/pip config get global.index-url 2> /dev/null)" \
	  || $(BIN)/python -m pip install --quiet --no-compile -c constraints.txt uv > /dev/null 2>&1 || true
	$(call install,setuptools wheel torch torchvision)
	$(call install,--no-build-isolation -e .)
	@$(BIN)/python ops/build.py > /dev/null || true
	@touch $@

$(INSTALLED): $(RUNNING)
	$(call install,--no-build-isolation -e '.[dev]')
	@$(BIN)/python ops/build.py > /dev/null || true
	@touch $@

# Nothing is trained again while the code and these configs are the same.
DEMO_CONFIG := configs/quickstart/demo.py
DEMO_DIR := work_dirs/demo
DEMO_TRAINED := $(DEMO_DIR)/.trained

demo: $(DEMO_TRAINED)
	@$(BIN)/python tools/test.py $(DEMO_CONFIG) "$$(cat $(DEMO_DIR)/last_checkpoint)" --show-dir $(DEMO_DIR)/pictures
	@$(BIN)/python tools/report.py $(DEMO_DIR)
	@echo
	@echo 'Open $(DEMO_DIR)/report.html: the training, the classes, the worst images'
	@echo "Open $$(find $(DEMO_DIR)/pictures -name '*.jpg' | sort | head -n 1): the first of the pictures of detections"
	@echo 'Next, your own images and labels: $(BIN)/python tools/new_experiment.py FOLDER'

$(DEMO_TRAINED): $(shell find frdet configs/_base_ configs/quickstart -name '*.py') tools/train.py | $(RUNNING)
	@$(BIN)/python -m frdet.datasets.shapes data/shapes
	@$(BIN)/python tools/train.py $(DEMO_CONFIG) --overwrite
	@touch $@

PYTEST := $(BIN)/python -m pytest -n $(JOBS) --dist loadfile --no-loadscope-reorder

# Each of these keeps a core busy. What they print comes as they end.
test: $(INSTALLED)
	@$(MAKE) --no-print-directory --jobs=3 --output-sync=target sanitized warnings style browser
	$(PYTEST)

# What a developer runs after each change: no whole trainings, no commands, no files that take long (tests/conftest.py).
quick: $(INSTALLED)
	$(PYTEST) -q -m 'not long' tests/models tests/ops tests/config tests/structures tests/datasets tests/evaluation \
	  tests/engine/test_runner.py tests/test_registry.py tests/test_progress.py

# A quarter of an hour; docs/benchmarks.md has the measurements at full size. The study of ablations that is last takes ten
# minutes of it.
BENCHMARKS := 'ops --rounds 3' 'train --against torchvision --short-side 320' 'infer --against torchvision --short-side 320' \
  'eval --count 500' 'memory --records 20000 --workers 2' 'start --rounds 1'

bench: $(INSTALLED)
	@set -e; for words in $(BENCHMARKS); do echo; $(BIN)/python tools/benchmark.py $$words; done
	@echo; $(BIN)/python tools/ablate.py configs/studies/shapes.py --jobs 2

sanitized: $(INSTALLED)
	@if test -e "$$(g++ -print-file-name=libasan.so 2>/dev/null)"; then $(MAKE) --no-print-directory sanitize; \
	  else echo 'No g++ with AddressSanitizer: the sanitized operators are not tested'; fi

# The HTML pages are tested in a browser. Where there is none and it cannot be installed, these tests are skipped.
browser:
	@if command -v chromium > /dev/null && command -v chromedriver > /dev/null; then :; \
	elif test "$$(id -u)" = 0 && command -v apt-get > /dev/null && \
	  { apt-get update -qq && DEBIAN_FRONTEND=noninteractive timeout 600 apt-get install -qq -y --no-install-recommends chromium chromium-driver; } > /dev/null 2>&1; \
	then echo 'Installed chromium and chromium-driver for the tests of HTML pages'; \
	else echo 'No chromium and chromedriver: the HTML pages are not tested in a browser'; fi

fuzz: $(INSTALLED)
	$(BIN)/python -m pytest -q -n $(JOBS) -m hypothesis --hypothesis-profile=long tests

# Other releases of MMEngine are unpacked in front of the installed one. PyTorch is large: a newer one than the tested one
# gets an environment of its own.
COMPAT_TESTS := tests/engine tests/apis tests/config tests/test_plugins.py tests/tools/test_train_and_test.py
COMPAT_MMENGINE := mmengine==0.11.0rc3 onedl-mmengine

test-compat: $(INSTALLED)
	@set -e; for release in $(COMPAT_MMENGINE); do \
	  folder=$(CURDIR)/build/compat/$${release%%=*}; rm -rf $$folder; \
	  $(BIN)/pip install --quiet --no-deps --target $$folder $$release; \
	  echo "With $$(ls -d $$folder/*.dist-info | xargs -n 1 basename)"; \
	  PYTHONPATH=$$folder $(BIN)/python -m pytest -q -n $(JOBS) --dist loadfile $(COMPAT_TESTS); \
	done
	@set -e; newest=$$($(BIN)/pip index versions torch 2>/dev/null | sed -n 's/^torch (\(.*\))/\1/p'); \
	tested=$$($(BIN)/python -c 'import torch; print(torch.__version__.split("+")[0])'); \
	if [ "$$newest" = "$$tested" ] || [ -z "$$newest" ]; then echo "PyTorch $$tested is the newest that pip offers"; else \
	  folder=$(CURDIR)/build/compat/torch; $(PYTHON) -m venv $$folder; \
	  $$folder/bin/pip install --quiet "torch==$$newest" torchvision setuptools wheel; \
	  $$folder/bin/pip install --quiet --no-build-isolation '.[test,loggers,export,ablation]'; \
	  echo "With PyTorch $$newest"; $$folder/bin/python -m pytest -q -n $(JOBS) --dist loadfile $(COMPAT_TESTS); \
	fi

OPS_SOURCES := $(foreach ending,cpp cu h cuh,$(wildcard ops/*.$(ending) ops/*/*.$(ending)))

lint: warnings style

style: $(INSTALLED)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/codespell
	$(BIN)/mypy frdet
	$(BIN)/lint-imports
ifneq ($(OPS_SOURCES),)
	$(BIN)/clang-format --dry-run -Werror $(OPS_SOURCES)
endif

# The pages of the API are written anew each time, so that a module that is gone leaves none behind. `warnings` reads all
# pages and resolves their links as `docs` does, in half of the time, and writes no HTML.
docs warnings: $(INSTALLED)
	rm -rf docs/api
	$(BIN)/sphinx-apidoc -q --separate --module-first --no-toc --output-dir docs/api frdet 'frdet/ops/*.so'
	$(BIN)/sphinx-build --quiet --fail-on-warning --keep-going -b $(if $(filter docs,$@),html,dummy) docs docs/_build/$(if $(filter docs,$@),html,$@)

format: $(INSTALLED)
	$(BIN)/ruff check --fix --exit-zero .
	$(BIN)/ruff format .
ifneq ($(OPS_SOURCES),)
	$(BIN)/clang-format -i $(OPS_SOURCES)
endif

# The CPU kernels again, with checks of every access and of undefined arithmetic, in a folder of their own. Python is not
# instrumented, so the sanitizer's runtime is loaded first; what Python itself never frees is not looked at.
sanitize: $(INSTALLED)
	FRDET_SANITIZE=1 FRDET_CUDA=0 CXX=g++ $(BIN)/python ops/build.py --out build/sanitize
	LD_PRELOAD="$$(g++ -print-file-name=libasan.so) $$(g++ -print-file-name=libstdc++.so)" \
	ASAN_OPTIONS=detect_leaks=0 UBSAN_OPTIONS=print_stacktrace=1 FRDET_LIBRARY_DIR=build/sanitize \
	$(BIN)/python -m pytest -q -p no:cacheprovider -k 'not gradcheck' tests/ops/test_nms.py tests/ops/test_roi_align.py \
	  tests/ops/test_max_iou.py tests/ops/test_errors.py

clean:
	rm -rf build dist docs/_build docs/api $(DEMO_DIR) data/shapes
	rm -rf .mypy_cache .pytest_cache .ruff_cache .hypothesis .import_linter_cache
	find frdet tools tests configs docs -name __pycache__ -type d -prune -exec rm -rf {} +
