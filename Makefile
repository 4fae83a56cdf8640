VENV ?= .venv
PYTHON ?= python3
BIN = $(VENV)/bin
CPU_TORCH = torch==2.13.0 torchvision==0.28.0
QUICK_TESTS = -m "not slow and not milvus and not int8 and not programs" -n auto --maxprocesses 5 --dist worksteal

.PHONY: demo test test-slow test-programs test-int8 test-clients test-browser test-scale test-milvus torture coverage lint format bench docs wheel clean

demo: $(VENV)/installed       ## index real photographs, search and label them; PHOTOS=DIR for your own
	@$(BIN)/python bench/demo.py $(if $(PHOTOS),--photos "$(PHOTOS)")

test: $(VENV)/installed       ## run the tests
	$(BIN)/python -m pytest $(QUICK_TESTS)

test-slow: $(VENV)/installed  ## run the tests that take minutes
	$(BIN)/python -m pytest -m slow

test-programs: $(VENV)/installed  ## run the tests that need other programs or root, skipping those that it finds no program for
	$(BIN)/python -m pytest -m "programs and not slow"

test-int8: $(VENV)/installed  ## run the tests of models in int8
	$(BIN)/pip install -q -c constraints.txt "nncf>=3.0"
	$(BIN)/python -m pytest -m int8 tests/encoders/test_quantising.py

test-clients: $(VENV)/installed  ## run other programs' own clients against a server
	$(BIN)/python -m pytest -m slow tests/web/test_client_packages.py

test-browser: $(VENV)/installed  ## look at the pages in Chromium, and with axe-core; AXE=axe.min.js where npm can't fetch it
	$(BIN)/python -m pytest tests/web/test_browser.py tests/web/test_browser_work.py tests/web/test_accessible.py $(if $(AXE),--axe "$(AXE)")

test-scale: $(VENV)/installed ## run the tests that need Ray, object storage or a server, without a network where that can be
	$(BIN)/pip install -q -c constraints.txt --group scale
	$$(unshare -n true 2>/dev/null && echo unshare -n) $(BIN)/python -m pytest -m slow tests/scale tests/contracts/test_engines.py tests/contracts/test_sources.py
	$(BIN)/python -m pytest -m "not slow" --database postgresql tests/test_library.py tests/test_tags.py tests/test_reviewing.py tests/test_browsing.py

test-milvus: $(VENV)/installed ## run the tests of an index on Milvus against a real server; QUICK=1 without those that kill it
	$(BIN)/pip install -q -c constraints.txt --no-deps milvus==2.3.5
	$$(unshare -n true 2>/dev/null && echo unshare -n) $(BIN)/python -m pytest -m "milvus$(if $(QUICK), and not slow)" tests/contracts/test_vectors.py tests/test_stores.py tests/scale/test_milvus.py

torture: $(VENV)/installed    ## kill, starve and unplug it for an hour; SEED=n PART=0.1
	$(BIN)/python -m pytest -s -m slow tests/reliability --torture-seed $(or $(SEED),1) --torture-part $(or $(PART),1)

coverage: $(VENV)/installed   ## run the tests of catalog, indexer and vectors, and fail where they take less than 95 % of the branches
	$(BIN)/pip install -q -c constraints.txt --group coverage
	$(BIN)/coverage erase && $(BIN)/coverage run -m pytest $(QUICK_TESTS) $$($(BIN)/python bench/branches.py --tests)
	$(BIN)/coverage combine -q && $(BIN)/coverage json -q && $(BIN)/python bench/branches.py

lint: $(VENV)/installed       ## check style and types
	$(BIN)/ruff check . && $(BIN)/ruff format --check . && $(BIN)/mypy

format: $(VENV)/installed     ## rewrite the code in the house style
	$(BIN)/ruff check --fix . ; $(BIN)/ruff format .

bench: $(VENV)/installed      ## measure bench/RESULTS.md anew in half an hour; DATA=DIR of labelled photos, QUICK=1 to see that it runs
	$(BIN)/python bench/run.py $(if $(DATA),--data "$(DATA)") $(if $(QUICK),--quick)

docs: $(VENV)/installed       ## write the reference, the README's commands and the measured tables of all pages
	$(BIN)/python -m docs.generate

wheel: $(VENV)/installed      ## build the wheel and the sdist into dist/
	$(BIN)/python -m build --outdir dist

clean:                        ## remove what make made
	rm -rf $(VENV) build dist demo

$(VENV)/installed: pyproject.toml constraints.txt
	$(PYTHON) -m venv $(VENV) && $(BIN)/pip install -q "pip>=25.1"
	$(BIN)/pip install -q -c constraints.txt $(CPU_TORCH) -e . --group demo --group dev
	@touch $@
