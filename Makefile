# `make demo` and `make test` need only Python 3.11 to 3.13 and make: the virtual environment is
# made, and filled, where it is missing or out of date.

PYTHON ?= python3
VENV   ?= .venv
BIN    := $(VENV)/bin
PIP    := $(BIN)/python -m pip --disable-pip-version-check

EXAMPLE ?= examples/any_colour.yaml
OUT     ?= out/demo.mp4
# The same story by this sampler, and a picture of both; empty for none.
BESIDE  ?= co_denoising
# A video that begins with a picture; empty for none.
PICTURE ?= examples/from_picture.yaml
# Processes of `make test`; each takes up to 3 GB.
JOBS    ?= 2

PACKAGES := syncos_jax

.DEFAULT_GOAL := help
.PHONY: help demo test test-optimised test-newest test-newest-quick mutants test-full test-accelerators bench lint format clean

help:
	@echo "make demo       a long video of five events from the built-in model, with and without synchronisation, and one that begins with a picture: $(OUT)"
	@echo "make test       the tests (13 minutes on two cores)"
	@echo "make test-full  the tests, with the slow ones (half an hour on two cores)"
	@echo "make test-optimised  sampler and networks with all of XLA's optimisations"
	@echo "make test-newest  a subset on the newest Python and JAX ($(NEWEST))"
	@echo "make test-newest-quick  the part of that subset that needs no PyTorch"
	@echo "make mutants    share of mutants of the sampler that the tests kill (hours)"
	@echo "make test-accelerators  programs for TPUs and GPUs that are not there, at full size (hours)"
	@echo "make lint       ruff and mypy"
	@echo "make format     let ruff fix and format"
	@echo "make bench      every measurement on this machine, into benchmarks/results (up to an hour)"
	@echo "make clean      remove the virtual environment and the caches"

# The stamps stand for what is installed; both are older than a changed pyproject.toml.
$(VENV)/.run: pyproject.toml
	@test -x $(BIN)/python || $(PYTHON) -c 'import sys; v = sys.version_info[:2]; (3, 11) <= v <= (3, 13) or sys.exit("error: $(PYTHON) is Python %d.%d; syncos_jax needs 3.11 to 3.13: make PYTHON=python3.12 ..." % v)'
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	@echo "installing ..."
	@begin=$$(date +%s); $(PIP) install --quiet -e ".[studio]" && echo "installed in $$(( $$(date +%s) - begin )) s"
	@touch $@

$(VENV)/.test: $(VENV)/.run
	$(PIP) install --quiet -e ".[test]"
	@touch $@

demo: $(VENV)/.run
	@mkdir -p $(dir $(OUT))
	$(BIN)/syncos generate $(EXAMPLE) --model demo --devices all $(addprefix --compare-with ,$(BESIDE)) --out $(OUT)
	$(if $(PICTURE),$(BIN)/syncos generate $(PICTURE) --model demo --devices all --out $(dir $(OUT))picture.mp4)

test: $(VENV)/.test
	$(BIN)/python -m pytest -m "not slow" -n $(JOBS) --dist worksteal --durations 40

# The programs that users get: the suite turns most of XLA's optimisations off to compile faster.
OPTIMISED := sampler_twin sampler_solvers models_parity wan_transformer cogvideox_transformer

test-optimised: $(VENV)/.test
	JAX_DISABLE_MOST_OPTIMIZATIONS=0 $(BIN)/python -m pytest -m "not slow" -n $(JOBS) $(OPTIMISED:%=tests/test_%.py)

# Newest Python and JAX, in a virtual environment of its own.
NEWEST ?= python3.13
SUBSET := assumptions windows schedule call_schedule sampler sampler_twin sampler_pure solvers run checkpoint pipeline \
  models_parity kernels_attention scenario tokenizer video programs parallel packaging

test-newest:
	$(MAKE) VENV=.venv-newest PYTHON=$(NEWEST) .venv-newest/.test
	.venv-newest/bin/python -m pytest -m "not slow" -n $(JOBS) $(SUBSET:%=tests/test_%.py)

# Without references in PyTorch, which take minutes to install.
QUICK := assumptions host_settings windows schedule call_schedule run sampler sampler_pure checkpoint pipeline \
  scenario programs video

.venv-newest/.quick: pyproject.toml
	$(MAKE) VENV=.venv-newest PYTHON=$(NEWEST) .venv-newest/.run
	.venv-newest/bin/python -m pip --disable-pip-version-check install --quiet pytest pytest-xdist hypothesis
	@touch $@

test-newest-quick: .venv-newest/.quick
	.venv-newest/bin/python -m pytest -m "not slow" -n $(JOBS) $(QUICK:%=tests/test_%.py)

mutants: $(VENV)/.test
	$(BIN)/python benchmarks/mutants.py

test-full: $(VENV)/.test
	$(BIN)/python -m pytest -n $(JOBS) --dist worksteal --durations 40

# Compilers of accelerators that are not there: 5 GB to install, and hours of one core to compile.
$(VENV)/.accelerators: $(VENV)/.test
	$(PIP) install --quiet -e ".[tpu-compiler,cuda]"
	@touch $@

test-accelerators: $(VENV)/.accelerators
	$(BIN)/python -m pytest tests/test_accelerators.py tests/test_hardware.py

bench: $(VENV)/.test
	$(BIN)/python benchmarks/all.py

lint: $(VENV)/.test
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy $(PACKAGES)

format: $(VENV)/.test
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

clean:
	rm -rf $(VENV) .venv-newest build dist *.egg-info .pytest_cache .mypy_cache .ruff_cache .hypothesis
