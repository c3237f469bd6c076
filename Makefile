# Everything sets itself up: the first call creates .venv and installs requirements.txt (minutes), later calls skip that.
VENV := .venv
PY := $(VENV)/bin/python
RUN ?= runs/demo

.DEFAULT_GOAL := help
.PHONY: help setup demo test lint sheet weights reproduce measure family publish clean

help: ## show this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-10s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

demo: setup ## all six stages on the bundled world of virtual faces, into runs/demo; again: only what is missing or stale
	$(PY) run_pipeline.py --profile demo --run "$(RUN)"

test: setup ## all tests
	$(PY) -m pytest

lint: setup ## ruff
	$(PY) -m ruff check .

sheet: setup ## 64 procedural faces with their masks, drawn to runs/sheet.png and runs/sheet_masks.png
	$(PY) -m virtual_face.render --seeds 0-63 --out runs/sheet.png --masks runs/sheet_masks.png

# The networks of weights/demo, in the order in which they need each other. Stopped and started again, trainings go on
# where they were; train_discriminator from the weights in the file, for its whole time once more; train_bundled with
# the network that it was stopped in, and those that were done are trained anew.
weights: setup ## train the bundled weights anew from nothing (hours)
	$(PY) -m virtual_face.train_generator --start work/generator_init.pth
	$(PY) -m virtual_face.dataset --generator work/generator_init.pth --out work/renders --count 20480 --shard 256
	$(PY) -m virtual_face.dataset --out work/heldout --count 2048 --first-seed 1000000
	$(PY) -m virtual_face.train_oracle --data work/renders --out weights/demo/attribute_net.pth --minutes 15
	$(PY) -m segmentation.train_parsenet --data work/renders --out weights/demo/parsenet.pth --minutes 20
	$(PY) -m torch.distributed.run --nproc-per-node 2 -m virtual_face.train_generator --minutes 60
	$(PY) -m torch.distributed.run --nproc-per-node 2 -m virtual_face.train_generator --minutes 150 \
	  --oracle weights/demo/attribute_net.pth
	$(PY) -m virtual_face.train_discriminator --minutes 4
	$(PY) -m virtual_face.label --out weights/demo/labels_first_2000.csv
	$(PY) run_pipeline.py --profile demo --run runs/weights --to 2 --train
	$(PY) -m cnn.bundle --run runs/weights --to weights/demo/cnn
	$(PY) run_stylegan_finetune_v9.py --run runs/weights --train --export weights/demo/generator_v9.pth
	$(PY) -m property_score.train_bundled --count 6000 --epochs 14
	$(PY) -m property_score.train_bundled --network hairstyle --count 6000 --epochs 80
	$(PY) -m property_score.train_bundled --network second_grader --count 6000 --epochs 14
	$(PY) run_stylegan_finetune.py --run runs/weights --version v1 --export weights/demo/generator_v1.pth

reproduce: weights ## the bundled weights anew, then every stage trained anew, into runs/reproduce (many hours)
	$(PY) run_pipeline.py --profile demo --run runs/reproduce --train

measure: setup ## measure renders, generator and latent space; needs the renders that `make weights` draws
	$(PY) -m virtual_face.measure

FAMILY := v1 v2 v3 v4 v5 v8 v9
family: setup ## every version of the fine-tuning family, mended and as published, with reports (more than an hour on one core)
	for version in $(FAMILY); do $(PY) run_stylegan_finetune.py --run "$(RUN)" --version $$version || exit 1; done
	$(PY) compute_property_scores.py --run "$(RUN)" --algorithm v1 --published
	for version in $(FAMILY); do $(PY) run_stylegan_finetune.py --run "$(RUN)" --version $$version --published || exit 1; done

publish: setup ## copy the reports of a run, with their pictures, into reports/
	$(PY) -m pipeline.publish --run "$(RUN)"

clean: ## remove the demo run and caches; other runs and .venv stay
	rm -rf -- "$(RUN)" .ruff_cache .pytest_cache
	find . -name __pycache__ -type d -not -path './$(VENV)/*' -prune -exec rm -rf {} +

# The copy of requirements.txt inside .venv tells what is installed; it is written last, so a killed install starts over.
# Without --no-compile pip would spend a minute on files that no stage imports.
setup: ## create or update .venv (the others do this by themselves)
	@cmp -s requirements.txt $(VENV)/requirements.txt || { \
	  set -e; \
	  if ! $(PY) -m pip --version >/dev/null 2>&1; then \
	    found=; \
	    for name in $(PYTHON) python3 python3.12 python3.11 python3.13 python3.10 python; do \
	      if "$$name" -c 'import sys; sys.exit(not (3, 10) <= sys.version_info[:2] <= (3, 13))' 2>/dev/null; then \
	        found="$$name"; break; \
	      fi; \
	    done; \
	    if [ -z "$$found" ]; then \
	      echo "error: Python 3.10 to 3.13 is needed; install one, or name it: make PYTHON=/path/to/python3.12 ..." >&2; \
	      exit 2; \
	    fi; \
	    echo "creating $(VENV) with $$("$$found" --version)"; \
	    "$$found" -m venv --clear $(VENV); \
	  fi; \
	  echo "installing requirements.txt into $(VENV)"; \
	  $(PY) -m pip install --disable-pip-version-check --no-compile -q -r requirements.txt; \
	  cp requirements.txt $(VENV)/requirements.txt; \
	}
