# Every target makes what it needs first: python3 (with venv), make and git are enough to start from.
PYTHON ?= python3
BIN    := .venv/bin
READY  := .venv/.installed
STUDIO := .venv-labelstudio/.installed
NBS    ?= $(filter-out nbs/index.ipynb,$(sort $(wildcard nbs/*.ipynb nbs/*/*.ipynb))) nbs/index.ipynb

.DEFAULT_GOAL := help
.PHONY: help demo test test-lab test-cluster test-labelstudio lab site notebooks readme clean need-quarto need-chromium

help: ## list the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "%-17s%s\n", $$1, $$2}' Makefile

demo: $(READY) ## a small active-learning run, its table and figure in out/
	$(BIN)/m2vaal_demo

# One thread each: two workers share the cores, and results do not depend on how many there are.
# A notebook has a process of its own: what it registers must not meet the next one.
# A file's tests stay together, so that what they share is made once.
test: $(READY) ## run every notebook, then the tests
	printf '%s\n' $(NBS) | OMP_NUM_THREADS=1 xargs -P 2 -n 1 $(BIN)/nbdev_test --do_print --path
	OMP_NUM_THREADS=1 $(BIN)/pytest -q -n 2 --dist loadfile --durations=10 tests

test-lab: need-chromium $(READY) ## run every notebook in JupyterLab in a browser; screenshots in out/lab/
	$(BIN)/pytest -q -m lab --durations=0 tests/test_lab.py tests/test_label_lab.py

test-cluster: $(READY) ## run grids on a local Ray, with workers killed
	$(BIN)/pytest -q -m cluster --durations=0 tests/test_cluster.py

test-labelstudio: $(STUDIO) $(READY) ## label in a real Label Studio on this machine: read what it exports, answer what it asks
	$(BIN)/pytest -q -m labelstudio --durations=0 tests/test_label_studio_server.py

need-chromium:
	@command -v chromium >/dev/null && command -v chromedriver >/dev/null || { echo 'JupyterLab is tested in Chromium, which is not on the PATH: on Debian,  apt-get install chromium chromium-driver  brings it.' >&2; exit 1; }

lab: $(READY) ## open the notebooks in JupyterLab
	$(BIN)/jupyter-lab nbs

notebooks: $(READY) ## export the package, rerun and save the notebooks; one: make notebooks NBS=nbs/00_data.ipynb
	$(BIN)/nbdev_export
	TQDM_DISABLE=1 $(BIN)/jupyter-nbconvert --to notebook --execute --inplace --ExecutePreprocessor.store_widget_state=False $(NBS)
	$(BIN)/nbdev_clean
	$(BIN)/python tools/small_outputs.py

readme: $(READY) ## write README.md from nbs/index.ipynb
	$(BIN)/python tools/readme.py

# After `readme`: nbdev_docs would else write README.md itself, with Quarto, where it looks older than its notebook.
site: need-quarto $(READY) readme ## render the site into _docs/ (needs Quarto)
	$(BIN)/nbdev_docs --n_workers 2

need-quarto:
	@command -v quarto >/dev/null || { echo 'The site is rendered by Quarto, which is not on the PATH: get it from https://quarto.org/docs/get-started' >&2; exit 1; }

clean: ## remove what the other targets wrote, except .venv and .venv-labelstudio
	rm -rf out _docs _proc build dist *.egg-info nbs/nbdev.yml .coverage .pytest_cache .hypothesis
	find . -path './.venv*' -prune -o \( -name __pycache__ -o -name .ipynb_checkpoints \) -type d -prune -exec rm -rf {} +

# The stamp is touched last, so an install that was cut short is done again.
$(READY): settings.ini setup.py
	@$(PYTHON) tools/check_python.py
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install -e '.[dev]'
	touch $@

# Label Studio has requirements that would not fit beside ours: an environment of its own.
$(STUDIO):
	$(PYTHON) -m venv .venv-labelstudio
	.venv-labelstudio/bin/python -m pip install label-studio
	touch $@
