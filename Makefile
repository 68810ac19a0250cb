PYTHON ?= python3
VENV ?= .venv
LOWEST = .venv-lowest

.PHONY: demo test test-lowest

# The main job: classify real images with the pretrained model.
demo: $(VENV)/demo
	$(VENV)/bin/python scripts/demo.py

# All tests. TIMM_CHECKOUT=DIR adds those of timm's own scripts (scripts/clone_timm.py gets one).
test: $(VENV)/test
	$(VENV)/bin/python -m pytest

# The fast tests with the lowest torch, timm and huggingface_hub that pyproject.toml allows.
test-lowest: $(LOWEST)/test
	$(LOWEST)/bin/python -m pytest -m "not recent_torch" tests/unit/test_wavelet.py tests/unit/test_wavemix.py \
		tests/unit/test_mixers.py tests/unit/test_pretrained.py tests/integration/test_hub.py

# An environment with the extra of the same name.
$(VENV)/%: pyproject.toml
	$(PYTHON) -m venv $(VENV)
	$(VENV)/bin/pip install --quiet --editable ".[$*]"
	touch $@

$(LOWEST)/test: pyproject.toml requirements-lowest.txt
	$(PYTHON) -m venv $(LOWEST)
	$(LOWEST)/bin/pip install --quiet --requirement requirements-lowest.txt
	$(LOWEST)/bin/pip install --quiet --no-deps --editable .
	touch $@
