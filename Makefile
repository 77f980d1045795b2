# Two commands do everything: `make demo` and `make test`. Each sets up what it needs in .venv first.

PYTHON ?= python3
VENV   ?= .venv
BIN    := $(VENV)/bin
READY  := $(VENV)/.ready

.PHONY: demo test test-hf test-browser test-ops lint evidence setup clean

demo: $(READY)            ## train a small sparse detector and draw what it learned
	$(BIN)/winnow demo

test: $(READY)            ## all tests; says which were left out, and why
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n 2 --dist worksteal -rs

test-hf: $(READY)         ## the tests that need Hugging Face's transformers, which this installs
	$(BIN)/python -m pip install --disable-pip-version-check --no-compile -q -c constraints.txt -e '.[dev,hf]'
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest tests/weights/test_hugging_face.py -rs

test-browser: $(READY)    ## the pages in a real browser: Chromium, which this installs where it may
	@for each in chromium chromium-browser google-chrome; do command -v $$each >/dev/null && exit 0; done; \
	{ [ "$$(id -u)" = 0 ] && command -v apt-get >/dev/null && apt-get update -qq && \
	    apt-get install -y -qq chromium >/dev/null; } || \
	{ echo "test-browser needs Chromium: apt-get install chromium (as root), or google-chrome on the path"; exit 1; }
	$(BIN)/python -m pip install --disable-pip-version-check --no-compile -q -c constraints.txt -e '.[dev,browser]'
	OMP_NUM_THREADS=1 WINNOW_SCREENSHOTS=build/screenshots $(BIN)/python -m pytest tests/browser -rs

test-ops: $(READY)        ## the numbers once more, by each backend of the operators and each instruction set
	for each in OPS=plain OPS=torch $$($(BIN)/python -c 'from winnow.ops import library; print(*("CPU=" + each for each in library.able()))'); do \
	    echo "WINNOW_$$each"; \
	    env WINNOW_$$each OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n 2 tests/ops tests/parity tests/test_attention.py || exit 1; \
	done

lint: $(READY)            ## style and types
	$(BIN)/ruff check src tests evidence hatch_build.py
	$(BIN)/mypy

evidence: $(READY)        ## slow proofs: full-size parity, the table of models, training runs
	$(BIN)/python -m pytest -m slow -rs
	$(BIN)/python -m evidence.model_table
	$(BIN)/python -m evidence.training demo
	$(BIN)/python -m evidence.training bccd
	$(BIN)/python -m evidence.compositions --again

setup: $(READY)

$(READY): pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit("Winnow needs Python 3.10 or newer, this is " + sys.version.split()[0] + "; say which with make PYTHON=...") if sys.version_info < (3, 10) else None'
	@began=$$(date +%s); \
	echo "setting up $(VENV): torch and friends, a few minutes and about 5 GB the first time"; \
	$(PYTHON) -m venv $(VENV) && \
	$(BIN)/python -m pip install --disable-pip-version-check --no-compile -c constraints.txt -e '.[dev]' && \
	touch $(READY) && echo "set-up took $$(( $$(date +%s) - began )) s"

clean:                    ## remove the environment and what tools left behind
	rm -rf $(VENV) .pytest_cache .mypy_cache .ruff_cache build dist
