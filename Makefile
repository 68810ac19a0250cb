PYTHON ?= python3
VENV ?= .venv
JOBS ?= 2
LOWEST = .venv-lowest
bin = $(1)/$(if $(filter Windows_NT,$(OS)),Scripts,bin)
PYTEST = $(call bin,$(VENV))/python -m pytest
PARALLEL = --numprocesses $(JOBS) --dist loadfile

.PHONY: demo unit test test-all test-lowest lint

# The main job: classify real images with the pretrained model.
demo: $(VENV)/demo
	$(call bin,$(VENV))/python scripts/demo.py

# The tests to run while you work: about a minute.
unit: $(VENV)/test
	OMP_NUM_THREADS=1 $(PYTEST) -m "not slow and not recent_torch" tests/unit

# All tests but the slow ones: a quarter of an hour on two cores.
test: $(VENV)/test
	OMP_NUM_THREADS=1 $(PYTEST) $(PARALLEL)

# The slow ones too. TIMM_CHECKOUT=DIR adds those of timm's own scripts (scripts/clone_timm.py gets one).
test-all: $(VENV)/test
	OMP_NUM_THREADS=1 $(PYTEST) $(PARALLEL) -m "not full_test_set"

# The tests of the package with the lowest torch, timm and huggingface_hub that pyproject.toml allows.
test-lowest: $(LOWEST)/test
	OMP_NUM_THREADS=1 $(call bin,$(LOWEST))/python -m pytest $(PARALLEL) -m "not slow and not recent_torch" \
		tests/unit/test_wavelet.py tests/unit/test_wavemix.py tests/unit/test_mixers.py \
		tests/unit/test_checkpoints.py tests/integration/test_pretrained.py tests/integration/test_hub_send.py \
		tests/integration/test_hub_files.py tests/integration/test_hub_card.py

# ruff, and mypy for the types that py.typed promises.
lint: $(VENV)/lint
	$(call bin,$(VENV))/ruff check
	$(call bin,$(VENV))/mypy

# $(call install,ENVIRONMENT,ARGUMENTS OF PIP)
define install
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 10) and "This needs Python 3.10 or newer, \
	and $(PYTHON) is " + sys.version.split()[0] + ": name another with `make PYTHON=python3.12`.")'
	@echo "Installing into $(1), which takes minutes ..."
	@$(PYTHON) -m venv $(1)
	@$(call bin,$(1))/python -m pip install --quiet --upgrade "pip>=25.1" 2> $(1)/pip.log && \
	$(call bin,$(1))/python -m pip install --quiet $(2) 2>> $(1)/pip.log || { \
	echo "pip cannot install the packages, $(1)/pip.log says why: does the network reach PyPI?" >&2; exit 1; }
	@touch $@
endef

# An environment with the dependency group of the same name; pip knows those from 25.1 on.
$(VENV)/%: pyproject.toml
	$(call install,$(VENV),--editable . --group $*)

$(LOWEST)/test: pyproject.toml requirements-lowest.txt
	$(call install,$(LOWEST),--requirement requirements-lowest.txt)
	@$(call bin,$(LOWEST))/python -m pip install --quiet --no-deps --editable .
