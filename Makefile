# `make demo` and `make test` make .venv themselves, and install again only when
# pyproject.toml or constraints.txt changed. A .venv that already holds the pinned torch keeps it.

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
VENV_VLLM := .venv-vllm
ARGS ?=
LLAMACPP ?= -DLLAVA_BUILD=OFF -DLLAMA_BUILD_TOOLS=OFF -DLLAMA_BUILD_EXAMPLES=OFF \
	-DLLAMA_BUILD_SERVER=OFF -DLLAMA_BUILD_TESTS=OFF -DLLAMA_CURL=OFF -DGGML_OPENMP=OFF

# The typed surface: what users import and what methods are written against.
TYPED := src/valign/values src/valign/corpora src/valign/control \
	src/valign/detect/types.py src/valign/measure/estimate.py

.PHONY: demo test test-vllm test-llamacpp lint clean

demo: $(VENV)/demo.stamp
	$(BIN)/valign demo --out runs/demo

test: $(VENV)/test.stamp
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n 2 --timeout 300 $(ARGS)

# The real engine on the CPU, in an environment of its own (Python 3.11).
test-vllm: $(VENV_VLLM)/stamp
	$(VENV_VLLM)/bin/valign serve --doctor
	OMP_NUM_THREADS=1 $(VENV_VLLM)/bin/python -m pytest tests/deploy/vllm_plugin --timeout 1600 $(ARGS)

# The GGUF vector in llama.cpp itself. Its Python package builds from source, which takes a compiler
# and up to half an hour, so neither `make test` nor an extra of the package asks for it.
test-llamacpp: $(VENV)/test.stamp
	CMAKE_ARGS="$(LLAMACPP)" $(BIN)/python -m pip install --quiet -c constraints.txt llama-cpp-python
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest tests/deploy/test_llamacpp.py -s $(ARGS)

lint: $(VENV)/test.stamp
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy $(TYPED)

# runs/ stays: it holds results.
clean:
	rm -rf $(VENV) $(VENV_VLLM) build dist .pytest_cache .ruff_cache .mypy_cache .hypothesis

$(VENV)/demo.stamp: EXTRAS := english
$(VENV)/test.stamp: EXTRAS := english,export,train,evals,test,lint

$(VENV)/%.stamp: pyproject.toml constraints.txt | $(BIN)/python
	$(BIN)/python -m pip install --quiet -c constraints.txt -e ".[$(EXTRAS)]"
	@touch $@

$(BIN)/python:
	$(PYTHON) -c 'import sys; sys.version_info >= (3, 11) or sys.exit("Python 3.11 or newer is needed; set PYTHON=")'
	$(PYTHON) -m venv $(VENV)

$(VENV_VLLM)/stamp: pyproject.toml constraints-vllm.txt
	$(PYTHON) -c 'import sys; sys.version_info[:2] == (3, 11) or sys.exit("Python 3.11 is needed; set PYTHON=")'
	$(PYTHON) -m venv $(VENV_VLLM)
	$(VENV_VLLM)/bin/python -m pip install --quiet --no-deps -r constraints-vllm.txt
	$(VENV_VLLM)/bin/python -m pip install --quiet --no-deps -e .
	@touch $@
