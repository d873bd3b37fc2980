# make demo: the whole main job on rendered photographs, fewer than the embedded default has, in five minutes on two idle
# cores; prints where index.html is.
# make test: the tests. Both set up .venv first and are quick when nothing changed.
# make test-lowest, make test-newest: the tests with the lowest or the newest versions that pyproject.toml allows, each in
# an environment of its own, .venv-lowest or .venv-newest.
# make docs: the pages and the API reference into docs/_build/html, every warning an error, no network.
# make clean: removes the environment and caches; trained models and reports in runs/ go by make clean-runs alone.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
READY := $(VENV)/.ready-$(shell cat pyproject.toml constraints.txt | cksum | tr ' ' '-')
export OMP_NUM_THREADS ?= 2

.PHONY: demo test test-all test-lowest test-newest lint docs data tiny setup clean clean-runs

demo: $(READY)
	$(BIN)/python -m clip_xai.studies.demo data.synthetic.scale=0.035 data.root=data/demo data.output_dir=data/demo_manifest

# Two processes of one thread each: threads that wait for each other on taken cores make it twice as slow. In their own
# order: the files of few long tests, which are the last ones otherwise, would keep one process alone.
test test-all: export OMP_NUM_THREADS = 1

test: $(READY)
	$(BIN)/python -m pytest -m "not slow" -n 2 --dist loadfile --no-loadscope-reorder

test-all: $(READY)
	$(BIN)/python -m pytest -n 2 --dist loadfile --no-loadscope-reorder

test-lowest test-newest: export OMP_NUM_THREADS = 1

test-lowest test-newest: test-%: .venv-%/.ready
	.venv-$*/bin/python -m pytest -m "not slow" -n 2 --dist loadfile --no-loadscope-reorder

# pip cannot choose the lowest versions; uv can.
.venv-lowest/.ready .venv-newest/.ready: .venv-%/.ready: pyproject.toml
	$(PYTHON) -m venv .venv-$*
	.venv-$*/bin/python -m pip install --quiet uv
	.venv-$*/bin/python -m uv pip install --quiet --python .venv-$*/bin/python --upgrade \
		--resolution $(if $(filter lowest,$*),lowest-direct,highest) --editable ".[dev]"
	touch $@

lint: $(READY)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

docs: $(READY)
	PYTHONPATH=src HF_HUB_OFFLINE=1 $(BIN)/python -m sphinx -q -W --keep-going -b html docs docs/_build/html
	@echo docs/_build/html/index.html

# The miniature data set and its manifest.
data: $(READY)
	$(BIN)/python -m clip_xai.jobs.prepare

# The embedded weights, made again from nothing (about an hour on two cores).
tiny: $(READY)
	$(BIN)/python -m clip_xai.studies.pretrain

setup: $(READY)

$(READY): pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit("clip-xai needs Python 3.10 or newer, $(PYTHON) is %s; try make PYTHON=python3.12" % sys.version.split()[0] if sys.version_info < (3, 10) else 0)'
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --upgrade pip
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable ".[dev]"
	rm -f $(VENV)/.ready-*
	touch $@

clean:
	rm -rf $(VENV) .venv-lowest .venv-newest .pytest_cache .ruff_cache .mypy_cache docs/_build docs/api
	find src tests benchmarks -name __pycache__ -type d -prune -exec rm -rf {} +

# Every trained model, evaluation and explanation under runs/, for good.
clean-runs:
	rm -rf runs
