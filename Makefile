# Every target sets up what it needs; `make help` lists them.

SHELL := /bin/bash
.DEFAULT_GOAL := help
.DELETE_ON_ERROR:
MAKEFLAGS += --no-print-directory

VENV ?= .venv
PY := $(VENV)/bin/python
PYTHON ?= $(shell for p in python3.12 python3.11 python3.13 python3 python; do \
	$$p -c 'import sys, venv, ensurepip; sys.exit(not (3, 11) <= sys.version_info < (3, 14))' >/dev/null 2>&1 \
	&& { command -v $$p; break; }; done)
OUTPUT ?= demo-output
JSON ?= bench-results.json
BENCH_DATA ?= $(or $(FACESTREAM_TEST_DATA),$(wildcard ../shared/data))
BENCH_ARGS ?=
PYTEST_ARGS ?=
TEST_PROCESSES ?= 3
FUZZ_SECONDS ?= 120
FUZZ_VENV ?= .venv-fuzz
AUDIT_VENV ?= .venv-audit

.PHONY: help
help:  ## this list
	@sed -nE 's/^([a-z-]+):.*  ## (.*)$$/  make \1\t\2/p' $(MAKEFILE_LIST) | expand -t 20

.PHONY: demo
demo: $(VENV)/.core  ## the main job on footage that it makes itself; needs nothing but Python
	$(VENV)/bin/facestream demo --output $(OUTPUT)

.PHONY: demo-console
demo-console: $(VENV)/.core  ## the demo, and then pages on which a stranger waits for a name, until Ctrl-C
	$(VENV)/bin/facestream demo --console --output $(OUTPUT)

.PHONY: test
test: $(VENV)/.test system-parts  ## the tests that take seconds each; names those that this machine cannot run
	$(PY) -m pytest --ignore tests/fault -m "not slow" $(IN_PARALLEL) $(PYTEST_ARGS)

.PHONY: test-all
test-all: $(VENV)/.test system-parts  ## those and the slow ones: whole workers, learning, parity with other packages
	$(PY) -m pytest --ignore tests/fault $(IN_PARALLEL) $(PYTEST_ARGS)

.PHONY: lint
lint: $(VENV)/.test  ## style, types, the direction of imports, and code that nobody uses
	$(VENV)/bin/ruff check .
	$(VENV)/bin/ruff format --check .
	$(VENV)/bin/mypy
	$(VENV)/bin/lint-imports
	$(VENV)/bin/vulture

.PHONY: format
format: $(VENV)/.test  ## rewrite the code in the project's style
	$(VENV)/bin/ruff check --fix .
	$(VENV)/bin/ruff format .

.PHONY: fault
fault: $(VENV)/.test system-parts  ## the tests that break Redis, databases, cameras and workers on purpose
	$(PY) -m pytest tests/fault --fault-rounds 50 --outage-s 60 --minutes 30 $(PYTEST_ARGS)

.PHONY: fault-short
fault-short: $(VENV)/.test system-parts  ## the same in minutes: five workers killed, short outages, a short soak
	$(PY) -m pytest tests/fault $(PYTEST_ARGS)

.PHONY: soak
soak: $(VENV)/.test system-parts  ## half an hour of four cameras: nothing may grow
	$(PY) -m pytest tests/fault/test_soak.py --soak-s 1800 $(PYTEST_ARGS)

.PHONY: fuzz
fuzz: $(FUZZ_VENV)/.done  ## wrong bytes of every kind for FUZZ_SECONDS a target, guided by coverage; TARGETS="photos h5"
	$(FUZZ_VENV)/bin/python -m tests.fuzz.guided $(FUZZ_SECONDS) $(TARGETS)

.PHONY: sbom
sbom: $(AUDIT_VENV)/.done $(VENV)/.core  ## what an installation is made of (CycloneDX), with licences, in build/sbom
	PYTHON=$(PY) $(AUDIT_VENV)/bin/python deploy/supply_chain.py sbom build/sbom

.PHONY: audit
audit: $(AUDIT_VENV)/.done  ## known weaknesses of the pinned packages; says so where they cannot be looked up
	$(AUDIT_VENV)/bin/python deploy/supply_chain.py audit

.PHONY: peers
peers: $(VENV)/.bench  ## the packages that facestream is compared with, where they can be had

.PHONY: bench
bench: $(VENV)/.bench  ## this machine's speed beside the peers; JSON=FILE names the result
	$(VENV)/bin/facestream bench --save $(JSON) $(if $(BENCH_DATA),--data $(BENCH_DATA)) $(BENCH_ARGS)

.PHONY: docs
docs: $(VENV)/.test  ## the documentation, as HTML in build/docs; a broken link is an error
	$(PY) -m sphinx -q -W --keep-going -b html docs build/docs
	@echo "build/docs/index.html"

.PHONY: screenshots
screenshots: $(VENV)/.test system-parts  ## the pictures of docs/console.md, from the demo's real pages
	FACESTREAM_SCREENSHOTS=docs/images $(PY) -m pytest -n 0 tests/console/test_demo.py -k newcomer

.PHONY: check-deploy
check-deploy: $(VENV)/.test  ## lint what is in deploy/ with the field's own tools
	$(PY) deploy/check.py

.PHONY: venv
venv: $(VENV)/.test  ## the virtual environment for development

.PHONY: lock
lock: $(VENV)/.uv  ## resolve the pinned requirements anew
	$(COMPILE) --extra dlib --extra encryption --extra postgres pyproject.toml -o requirements.txt
	$(COMPILE) --extra test -c requirements.txt pyproject.toml -o requirements-test.txt
	$(COMPILE) --extra console --extra dlib --extra encryption --extra postgres -c requirements.txt -c requirements-test.txt pyproject.toml -o requirements-console.txt
	for extra in gpu gpu-jax gpu-torch; do $(COMPILE) --extra $$extra --extra dlib --extra encryption --extra postgres \
		-c requirements.txt -c requirements-test.txt pyproject.toml -o requirements-$$extra.txt || exit 1; done
	echo 'uv' | $(COMPILE) - -o requirements-uv.txt
	echo 'hatchling' | $(COMPILE) -c requirements-test.txt - -o requirements-build.txt

.PHONY: clean
clean:  ## remove what the other targets made
	rm -rf $(VENV) $(FUZZ_VENV) $(AUDIT_VENV) build dist $(OUTPUT) .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache

.PHONY: system-parts
system-parts:
	@.ci/system-parts gir1.2-gst-rtsp-server-1.0 python3-gi gstreamer1.0-plugins-good gstreamer1.0-plugins-bad faketime \
		chromium

# One set of versions for all supported Pythons: what is tested is what is installed. No registry is named,
# so that everybody's own pip settings apply.
COMPILE := $(VENV)/bin/uv pip compile --quiet --upgrade --universal --fork-strategy fewest --python-version 3.11 \
	--generate-hashes --no-emit-index-url --no-emit-find-links --no-header --no-annotate

# Many tests wait for other processes: one more than there are cores keeps these busy. A file stays in one process, so
# that what its tests share is made once.
IN_PARALLEL := -n $(TEST_PROCESSES) --dist loadfile

# uv takes a quarter of the time; pip knows the settings (mirrors, local wheels) that uv does not read.
INSTALL = $(VENV)/bin/uv pip install -qq --python $(PY) $(1) 2>/dev/null || $(PY) -m pip install -qq $(1)

$(VENV)/.uv: requirements-uv.txt
	@test -n "$(PYTHON)" || { echo "no Python 3.11 to 3.13 with venv on the PATH: install one, or make PYTHON=/path/to/python3" >&2; exit 1; }
	@echo "making $(VENV) with $(PYTHON)"
	$(PYTHON) -m venv --clear $(VENV)
	-@$(PY) -m pip install -qq --require-hashes -r requirements-uv.txt
	@touch $@

# With the console, which is the next step after the demo.
$(VENV)/.core: $(VENV)/.uv requirements-console.txt pyproject.toml
	@echo "installing the pinned requirements: this takes minutes, once"
	@$(call INSTALL,--require-hashes -r requirements-console.txt)
	@$(call INSTALL,--no-deps -e .)
	@# uv compiles nothing: a start that is not allowed to write would compile all that it imports, every time.
	@PYTHONDONTWRITEBYTECODE= $(PY) -c "import worker.cli, worker.service.service, worker.faces.engines.openvino"
	@touch $@

$(VENV)/.test: $(VENV)/.core requirements-test.txt
	@$(call INSTALL,--require-hashes -r requirements-test.txt)
	@touch $@

# Atheris has wheels for Linux and a few Pythons only, so it is none of the test requirements. It lies in an environment
# of its own, which looks into the other one for everything else.
$(FUZZ_VENV)/.done: $(VENV)/.test
	$(PY) -m venv --clear $(FUZZ_VENV)
	@$(PY) -c 'import sysconfig; print(sysconfig.get_path("purelib"))' \
		> "$$($(FUZZ_VENV)/bin/python -c 'import sysconfig; print(sysconfig.get_path("purelib"))')/others.pth"
	@$(FUZZ_VENV)/bin/python -m pip install -qq --no-deps atheris==3.0.0 || { \
		echo "atheris, which guides the fuzzing, has no wheel for this Python or cannot be reached: use Python 3.11 or 3.12" >&2; exit 1; }
	@touch $@

$(AUDIT_VENV)/.done: $(VENV)/.uv
	$(PY) -m venv --clear $(AUDIT_VENV)
	@$(AUDIT_VENV)/bin/python -m pip install -qq cyclonedx-bom==7.5.0 pip-audit==2.10.1
	@touch $@

# facenet-pytorch asks for old versions of NumPy and torch, and runs with new ones. pip, not uv: pip's settings
# may offer a build of torch for the processor, which spares gigabytes.
# A peer that cannot be installed is no failure: its row says so.
$(VENV)/.bench: $(VENV)/.test
	-$(PY) -m pip install -qq torch==2.13.0
	-$(PY) -m pip install -qq --no-deps facenet-pytorch==2.6.0
	-$(PY) -m pip install -qq nncf onnx onnxruntime psutil tqdm
	@touch $@
