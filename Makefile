# Two commands: `make demo` and `make test`. Nothing else is needed beforehand but Python 3.11+ and make.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
OUT ?= demo
STARS ?= 200000

.PHONY: help demo test quick static docs lint types imports pytest pytest-quick mutants fuzz dist cluster faults install install-test install-docs bench-ingest bench-simulate bench-match bench-tiling bench-model bench-label clean

help: ## What can be made
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "make %-16s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

demo: install ## Install into .venv, simulate a sky, run the whole chain on it (OUT=demo STARS=200000)
	$(BIN)/stellarml demo --out $(OUT) --stars $(STARS)

test: install-test install-docs lint types imports pytest ## Everything that must hold: lint, types, layers, all tests (16 to 21 minutes)

quick: install-test ## The loop while you work: lint, types, layers, tests without Spark and TensorFlow (a minute)
	@$(MAKE) --no-print-directory --jobs 2 --output-sync static pytest-quick

static: lint types imports

docs: install-docs ## The documents, into docs/_build/html; warnings are errors
	$(BIN)/sphinx-build -W --keep-going -q -b html docs docs/_build/html

lint:
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

types:
	$(BIN)/mypy

imports:
	$(BIN)/lint-imports

# Two processes of tests side by side, a file at a time: Spark leaves its cores idle often enough.
pytest:
	$(BIN)/python -m pytest --numprocesses 2 --dist loadfile --no-loadscope-reorder

pytest-quick:
	$(BIN)/python -m pytest tests/unit -q -m 'not spark and not tensorflow and not slow' --numprocesses 2 --dist loadfile

# Ingest of bulk files against `gzip -dc` on the same files, two at a time, in one run.
bench-ingest: install ## Ingest beside gzip -dc
	$(BIN)/python tests/bench/bench_ingest.py

# Seconds and memory of a simulated sky of a million stars.
bench-simulate: install ## Seconds and memory of a simulated sky
	$(BIN)/python tests/bench/bench_simulate.py

# The cross-match against LSDB and STILTS on the same files, and what reading and writing alone cost. About 40 minutes.
bench-match: install ## The cross-match beside LSDB and STILTS (40 minutes)
	$(BIN)/python tests/bench/bench_match.py --memory --scaling --dense

# HATS from Parquet files against hats-import, and a table of 30 M rows in a driver of 8 GB.
bench-tiling: install ## HATS catalogues beside hats-import
	$(BIN)/python tests/bench/bench_tiling.py
	$(BIN)/python tests/bench/bench_tiling.py --memory

# The default model against other learners and the paper's network, fold by fold, and on a simulated sky of nine million
# sources, where truth is known; goes on where it was stopped.
bench-model: install ## The model beside other learners
	$(BIN)/python tests/bench/bench_model.py
	$(BIN)/python tests/bench/bench_sky.py

# Labelling: engines, Parquet to Parquet on two cores, the recipe of Spark's documentation, time over rows.
bench-label: install ## Labelling beside a naive Keras UDF
	$(BIN)/python tests/bench/bench_label.py

# What a cluster needs, if its machines have Python 3.11 and Spark and nothing else: the package, and its dependencies
# without TensorFlow, which only the driver of `train` needs, and without pyspark, which the cluster has.
dist: dist/stellarml.zip dist/environment.tar.gz ## What a cluster needs: package and environment as archives

dist/stellarml.zip: $(VENV)/.installed $(shell find stellarml conf -type f -not -name '*.pyc')
	$(BIN)/python -m pip wheel --quiet --no-deps --wheel-dir dist .
	mv dist/stellarml-*.whl $@

dist/environment.tar.gz: pyproject.toml constraints.txt
	rm -rf build/environment && $(PYTHON) -m venv build/environment
	$(PYTHON) -c 'import tomllib; print(*tomllib.load(open("pyproject.toml", "rb"))["project"]["dependencies"], sep="\n")' \
	  | grep -v -e ^tensorflow -e ^pyspark > build/environment/requirements.txt
	build/environment/bin/python -m pip install --quiet --constraint constraints.txt --upgrade pip venv-pack2
	build/environment/bin/python -m pip install --quiet --constraint constraints.txt --requirement build/environment/requirements.txt
	mkdir -p dist
	build/environment/bin/venv-pack --prefix build/environment --quiet --force --compress-level 1 --output $@

# The whole chain on a cluster from what `dist` makes, the DAG run by Airflow, the services of the compose file. About 15
# minutes.
cluster: install-test dist .peers/airflow/bin/airflow ## The chain on a standalone cluster, Airflow, the compose file (15 minutes)
	STELLARML_DIST=dist STELLARML_AIRFLOW=.peers/airflow/bin/python \
	  $(BIN)/python -m pytest tests/cluster/test_chain_on_cluster.py tests/cluster/test_airflow.py tests/cluster/test_compose.py \
	  tests/jobs/test_jre.py

# Every command hurt at random moments, 60 times: processes killed, disks filled, inputs replaced. Then parts of a cluster
# killed while it labels, 24 times. About an hour.
faults: install-test ## Every command and a cluster hurt 84 times (an hour)
	STELLARML_FAULTS=60 $(BIN)/python -m pytest tests/faults -rP
	STELLARML_FAULTS=24 $(BIN)/python -m pytest tests/cluster/test_cluster.py

.peers/airflow/bin/airflow:
	$(PYTHON) -m venv .peers/airflow
	.peers/airflow/bin/python -m pip install --quiet 'apache-airflow>=3,<4' apache-airflow-providers-apache-spark

# Faults put into a copy of the cross-match, one by one: the tests must notice each.
mutants: install-test ## Faults put into the cross-match: tests must notice each
	$(BIN)/python tests/mutants/run_mutants.py

# Damaged files of every format that is read, from seeds; FORMATS="csv ecsv.gz", FUZZ=2000, and --keep in FORMATS puts
# what fails into tests/fuzz/corpus.
FUZZ ?= 20000
fuzz: install-test ## 20,000 damaged files of every format that is read (two hours)
	PYTHONPATH=tests $(BIN)/python -m fuzz.run_fuzz --inputs $(FUZZ) $(FORMATS)

install: $(VENV)/.installed

install-test: $(VENV)/.installed-test

install-docs: $(VENV)/.installed-docs

# Java: the system's where there is one of version 17 or newer, otherwise the jre extra.
$(VENV)/.installed: pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' \
	  || { echo "stellarml needs Python 3.11 or newer, found $$($(PYTHON) --version). Try  make PYTHON=python3.11"; exit 2; }
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --upgrade pip
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable .
	@$(BIN)/python -m stellarml.run.spark_session >/dev/null 2>&1 \
	  || $(BIN)/python -m pip install --quiet --constraint constraints.txt --editable '.[jre]'
	@touch $@

$(VENV)/.installed-test: $(VENV)/.installed
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable '.[test,jre]'
	@touch $@

$(VENV)/.installed-docs: $(VENV)/.installed
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable '.[docs]'
	@touch $@

clean: ## Remove what was installed and built
	rm -rf $(VENV) $(OUT) build dist docs/_build docs/*/_generated *.egg-info .mypy_cache .ruff_cache .pytest_cache .hypothesis
