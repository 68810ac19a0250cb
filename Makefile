PYTHON ?= python3
VENV ?= .venv
JOBS ?= 2
LOWEST ?= .venv-lowest
bin = $(1)/$(if $(filter Windows_NT,$(OS)),Scripts,bin)
PYTEST = $(call bin,$(VENV))/python -m pytest
PARALLEL = --numprocesses $(JOBS) --dist loadfile

.PHONY: demo web unit test test-all test-lowest lint

# The main job: classify real images with the pretrained model.
demo: $(VENV)/demo
	$(call bin,$(VENV))/python scripts/demo.py

# Pages that classify in the browser, in web/: look at them with `python3 -m http.server --directory web`.
web: $(VENV)/web
	rm -rf web && mkdir web
	for model in wavemix_16_5 wavemix_lite_8_5; do $(call bin,$(VENV))/timm-wavemix export $$model web web/$$model \
		--examples scripts/images/demo $(addprefix --calibration ,$(wildcard fashion_mnist/train)) || exit 1; done

# The tests to run while you work: less than a minute.
unit: $(VENV)/test
	OMP_NUM_THREADS=1 $(PYTEST) $(PARALLEL) -m "not slow and not recent_torch" tests/unit

# All tests except the slow ones: about seven minutes on two cores.
test: $(VENV)/test
	OMP_NUM_THREADS=1 $(PYTEST) $(PARALLEL)

# The slow ones too. TIMM_CHECKOUT=DIR adds those of timm's own scripts (`timm-wavemix clone-timm` makes one).
test-all: $(VENV)/test
	OMP_NUM_THREADS=1 $(PYTEST) $(PARALLEL) -m "not full_test_set"

# The tests of the package with the lowest torch, timm and huggingface_hub that pyproject.toml allows.
test-lowest: $(LOWEST)/test
	OMP_NUM_THREADS=1 $(call bin,$(LOWEST))/python -m pytest $(PARALLEL) -m "not slow and not recent_torch" \
		tests/unit/test_wavelet.py tests/unit/test_wavemix.py tests/unit/test_mixers.py tests/unit/test_checkpoints.py \
		tests/integration/test_pretrained.py tests/integration/test_export.py tests/integration/test_hub_card.py \
		tests/integration/test_hub_files.py tests/integration/test_hub_send.py

# ruff, and mypy for the types that py.typed promises.
lint: $(VENV)/lint
	$(call bin,$(VENV))/ruff check
	$(call bin,$(VENV))/mypy

# $(call install,ENVIRONMENT,ARGUMENTS OF PIP,NEWEST MINOR VERSION OF PYTHON 3)
define install
	@$(PYTHON) -c 'import sys; sys.exit(not (3, 10) <= sys.version_info[:2] <= (3, $(3)) and \
	"make: this needs Python 3.10 to 3.$(3), $(PYTHON) is " + sys.version.split()[0] + \
	": name another, as in `make $(MAKECMDGOALS) PYTHON=python3.12`.")'
	@echo "Installing into $(1): minutes, and 6 GB with the GPU libraries of torch. $(1)/pip.log shows how far it is."
	@$(PYTHON) -m venv $(1)
	@$(call bin,$(1))/python -m pip install --upgrade "pip>=25.1" > $(1)/pip.log 2>&1 && \
	$(call bin,$(1))/python -m pip install $(2) >> $(1)/pip.log 2>&1 || { \
	echo "make: pip failed, $(1)/pip.log ends with:" >&2; tail -n 12 $(1)/pip.log >&2; exit 1; }
	@touch $@
endef

# An environment with the dependency group of the same name; pip knows those from 25.1 on.
$(VENV)/%: pyproject.toml
	$(call install,$(VENV),--editable . --group $*,99)

$(LOWEST)/test: pyproject.toml requirements-lowest.txt
	$(call install,$(LOWEST),--editable . --requirement requirements-lowest.txt,14)
