# `make demo` and `make test` need git, make and Python >= 3.11; the rest they install into .venv.
# Your own environment instead: `pip install -e .`, then `snakemake`.

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
LOCK := envs/requirements.lock
CPU_LOCK := envs/requirements-cpu.lock
SLURM_LOCK := envs/requirements-slurm.lock
SLURM := $(VENV)/slurm
AXE := axe-core@4.14.1

# On Linux, PyPI's torch and faiss-gpu bring 6 GB of CUDA libraries along. A machine without an
# NVIDIA GPU gets builds for CPUs; `make CPU=0 ...` and `make CPU=1 ...` decide it by hand.
ifeq ($(shell uname -s),Linux)
CPU ?= $(if $(shell command -v nvidia-smi),0,1)
endif
KIND := $(if $(filter 1,$(CPU)),cpu,gpu)
INSTALLED := $(VENV)/installed-$(KIND)
UV_INSTALL = $(BIN)/uv pip install --quiet --python $(BIN)/python --compile-bytecode
TORCH = $(shell sed -nE 's/^(torch(vision)?==[^ ]+).*/\1/p' $(LOCK))

# Without bytecode, importing torch and timm takes a quarter of a minute and not a few seconds.
unexport PYTHONDONTWRITEBYTECODE
# The workflow finds its Python on PATH, as in an activated environment.
export PATH := $(abspath $(BIN)):$(PATH)

.PHONY: demo test test-slow test-cluster axe chaos coverage docs lint format lock clean

demo: $(INSTALLED)
	snakemake

test: $(INSTALLED)
	python -m pytest -n 2 --dist worksteal -m "not slow"

test-slow: $(INSTALLED)
	python -m pytest -n 2 --dist loadfile -m slow

# On a SLURM that the tests start. Debian's packages: slurm-wlm slurmctld slurmd slurm-client munge
test-cluster: $(SLURM)/installed
	PYTHONPATH=$(abspath $(SLURM)) DMLBENCH_TEST_CLUSTER=1 python -m pytest -n 2 -m cluster tests/cluster

# Snakemake's plugin has a folder of its own: in .venv, each start of Snakemake would import it.
$(SLURM)/installed: $(SLURM_LOCK) $(INSTALLED)
	rm -rf $(SLURM)
	$(UV_INSTALL) --no-deps --require-hashes --target $(SLURM) --requirements $(SLURM_LOCK)
	touch $@

# The rules of accessibility that tests/leaderboard/test_accessible.py tries on the pages; needs npm.
axe: $(VENV)/axe/installed-$(AXE)

$(VENV)/axe/installed-$(AXE): $(INSTALLED)
	rm -rf $(VENV)/axe
	npm install --prefix $(VENV)/axe --no-save --ignore-scripts --no-audit --no-fund --silent $(AXE)
	touch $@

# Sixty kills at random moments take an hour on two cores; DMLBENCH_CHAOS_SEED repeats those of a seed.
chaos: $(INSTALLED)
	DMLBENCH_CHAOS_KILLS=60 python -m pytest -m slow tests/chaos

# Which lines of the package the tests run. Lines that run in other processes are not counted.
coverage: $(INSTALLED)
	python -m pytest -n 2 --dist worksteal -m "not slow" --cov=dmlbench --cov-report=term:skip-covered

docs: $(INSTALLED)
	mkdocs build --strict --quiet

lint: $(INSTALLED)
	ruff check .
	ruff format --check .
	mypy
	git ls-files | xargs codespell
	snakefmt --check Snakefile workflow/Snakefile workflow/rules
	snakemake --lint

format: $(INSTALLED)
	ruff check --fix .
	ruff format .
	snakefmt Snakefile workflow/Snakefile workflow/rules

# The installer and its version are part of the lock: the same files on every machine.
$(INSTALLED): $(LOCK) $(CPU_LOCK) pyproject.toml
	$(PYTHON) -c 'import sys; sys.exit("dmlbench needs Python >= 3.11, found " + sys.version.split()[0] \
	  + "; name another one: make PYTHON=python3.12" if sys.version_info < (3, 11) else 0)'
	@# an environment of the other kind is made anew
	$(if $(wildcard $(VENV)/installed-*),$(if $(wildcard $(INSTALLED)),,rm -rf $(VENV)))
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check "uv==$$(sed -n 's/^# installer: uv==//p' $(LOCK))"
ifeq ($(KIND),cpu)
	$(UV_INSTALL) --no-deps --require-hashes --requirements $(CPU_LOCK)
	@# PyTorch's own index has the builds for CPUs
	@$(UV_INSTALL) --no-deps --torch-backend cpu $(TORCH) 2> /dev/null || { \
	  echo "PyTorch's index was not reached. This installs PyPI's torch, which needs 3 GB more: CUDA."; \
	  $(UV_INSTALL) --constraints $(LOCK) --excludes envs/cpu-excludes.txt $(TORCH); }
else
	$(UV_INSTALL) --require-hashes --requirements $(LOCK)
endif
	$(UV_INSTALL) --no-deps --editable .
	$(BIN)/python -m compileall -q dmlbench
	touch $@

# The lock for CPUs has the same versions, without torch and all that only a GPU needs.
COMPILE = $(BIN)/uv pip compile pyproject.toml --universal --python-version 3.11 --quiet \
  --generate-hashes --no-emit-index-url --no-header
lock:
	printf '# installer: uv==%s\n' "$$($(BIN)/uv --version | cut -d' ' -f2)" > $(LOCK).new
	$(COMPILE) --extra dev --upgrade >> $(LOCK).new
	mv $(LOCK).new $(LOCK)
	grep -oE '^(nvidia-|cuda-|triton|faiss-gpu)[a-z0-9-]*' $(LOCK) > $(LOCK).gpu
	sed -nE 's/^(faiss-cpu==[^ ]+).*/\1/p' $(LOCK) > $(LOCK).faiss
	$(COMPILE) --extra dev --no-annotate --constraints $(LOCK) --excludes $(LOCK).gpu --overrides $(LOCK).faiss \
	  --no-emit-package torch --no-emit-package torchvision > $(CPU_LOCK)
	rm $(LOCK).gpu $(LOCK).faiss
	@# only what the plugins for clusters need beside the packages of the other locks
	$(COMPILE) --extra slurm --extra cluster-generic --no-annotate --constraints $(LOCK) \
	  $$(sed -nE 's/^([a-z0-9._-]+)==.*/--no-emit-package \1/p' $(LOCK) | sort -u) > $(SLURM_LOCK)

clean:
	rm -rf $(VENV) results/demo
