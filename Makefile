VENV ?= .venv
PYTHON ?= python3
BIN = $(VENV)/bin
RIVALS = against_rclip against_clip_retrieval
BENCHES = encoders pipeline memory index filters labels incremental decoding quality reliability serving
CPU_TORCH = torch==2.13.0 torchvision==0.28.0

.PHONY: demo test test-slow test-clients test-browser test-scale test-milvus torture lint format bench docs wheel clean

demo: $(VENV)/installed       ## index real photographs, search and label them; PHOTOS=DIR for your own
	@$(BIN)/python bench/demo.py $(if $(PHOTOS),--photos "$(PHOTOS)")

test: $(VENV)/installed       ## run the tests
	$(BIN)/python -m pytest -m "not slow and not milvus" -n auto --maxprocesses 5 --dist worksteal

test-slow: $(VENV)/installed  ## run the tests that take minutes
	$(BIN)/python -m pytest -m slow

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

lint: $(VENV)/installed       ## check style and types
	$(BIN)/ruff check . && $(BIN)/ruff format --check . && $(BIN)/mypy

format: $(VENV)/installed     ## rewrite the code in the house style
	$(BIN)/ruff check --fix . ; $(BIN)/ruff format .

bench: $(VENV)/installed      ## rerun the figures in bench/RESULTS.md; QUICK=1 to see that the rivals run
	@for script in $(RIVALS); do $(BIN)/python bench/$$script.py $(if $(QUICK),--quick) || exit 1; done
	@for script in $(BENCHES); do $(BIN)/python bench/$$script.py || exit 1; done

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
