# `make demo` and `make test` need git, make and Python >= 3.11; the rest they install into .venv.
# Your own environment instead: `pip install -e .`, then `snakemake`.

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
LOCK := envs/requirements.lock

# Without bytecode, importing torch and timm takes a quarter of a minute and not a few seconds.
unexport PYTHONDONTWRITEBYTECODE
# The workflow finds its Python on PATH, as in an activated environment.
export PATH := $(abspath $(BIN)):$(PATH)

.PHONY: demo test test-slow coverage docs lint format lock clean

demo: $(VENV)/installed
	snakemake

test: $(VENV)/installed
	python -m pytest -n 2 -m "not slow"

test-slow: $(VENV)/installed
	python -m pytest -n 2 --dist loadfile -m slow

# Which lines of the package the tests run. Lines that run in other processes are not counted.
coverage: $(VENV)/installed
	python -m pytest -n 2 -m "not slow" --cov=dmlbench --cov-report=term:skip-covered

docs: $(VENV)/installed
	mkdocs build --strict --quiet

lint: $(VENV)/installed
	ruff check .
	ruff format --check .
	mypy
	git ls-files | xargs codespell
	snakefmt --check Snakefile workflow/Snakefile workflow/rules
	snakemake --lint

format: $(VENV)/installed
	ruff check --fix .
	ruff format .
	snakefmt Snakefile workflow/Snakefile workflow/rules

# The installer and its version are part of the lock: the same files on every machine.
$(VENV)/installed: $(LOCK) pyproject.toml
	$(PYTHON) -c 'import sys; sys.exit("dmlbench needs Python >= 3.11, found " + sys.version.split()[0] \
	  + "; name another one: make PYTHON=python3.12" if sys.version_info < (3, 11) else 0)'
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check "uv==$$(sed -n 's/^# installer: uv==//p' $(LOCK))"
	$(BIN)/uv pip install --quiet --python $(BIN)/python --compile-bytecode --require-hashes --requirements $(LOCK)
	$(BIN)/uv pip install --quiet --python $(BIN)/python --no-deps --editable .
	$(BIN)/python -m compileall -q dmlbench
	touch $@

lock:
	printf '# installer: uv==%s\n' "$$($(BIN)/uv --version | cut -d' ' -f2)" > $(LOCK).new
	$(BIN)/uv pip compile pyproject.toml --extra dev --universal --python-version 3.11 --upgrade --quiet \
	  --generate-hashes --no-emit-index-url --no-header >> $(LOCK).new
	mv $(LOCK).new $(LOCK)

clean:
	rm -rf $(VENV) results/demo
