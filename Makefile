# `make demo` and `make test` are all a newcomer needs; each sets up what is missing first.
SHELL := /bin/bash
.DEFAULT_GOAL := help
ENV := . tools/env.sh &&

QUICK ?= 0
ifeq ($(QUICK),1)
  DEMO_SIZE := --demonstrations 20 --episodes 5 --selection src/atk_sim/config/quick_selection.yaml
endif

.PHONY: help setup demo test expert benchmark benchmark-report benchmark-check bench faults bench-perception bench-transfer bench-policy bench-selection lint clean

help:  ## this list
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /|/' | awk -F'|' '{printf "  make %-17s %s\n", $$1, $$2}'

setup:  ## install what is missing and build (the other targets do this by themselves)
	@tools/setup.sh

demo: setup  ## record an expert, select keypoints, run the policy under every disturbance (QUICK=1: under 5 minutes)
	@$(ENV) python -m atk_sim.demo --output runs/demo $(DEMO_SIZE)

test: setup  ## linters, types, unit tests and the whole-stack tests
	@$(ENV) tools/test.sh

expert: setup  ## success of the scripted expert over 200 seeds of every task
	@$(ENV) python -m atk_sim.expert_benchmark --episodes 200

benchmark: setup  ## every task, method and disturbance beside the paper's figures (a day; goes on where it was; ARGS=... drives something else)
	@$(ENV) python -m atk_sim.benchmark --output runs/benchmark $(or $(ARGS),--plan bars)

benchmark-report: setup  ## the report of runs/benchmark into docs/benchmark, to be committed; what is in it and was not driven anew stays
	@$(ENV) python -m atk_sim.benchmark_report runs/benchmark --output docs/benchmark --keep --command "make benchmark benchmark-report"

benchmark-check: setup  ## a random tenth of the committed benchmark again, compared with its intervals
	@$(ENV) python -m atk_sim.benchmark_check docs/benchmark/results.json $(ARGS)

bench: setup  ## camera-to-command latency and lost frames between separate processes (a minute; ARGS="--seconds 600": ten)
	@$(ENV) python -m atk_sim.latency_benchmark_node $(ARGS)

faults: setup  ## every fault that a robot may meet, injected in motion: limits, holds, causes (QUICK=1: one seed; ARGS="--only FAULT...")
	@$(ENV) python -m atk_sim.fault_campaign --output runs/faults $(if $(filter 1,$(QUICK)),--seeds 1) $(ARGS)

bench-perception: setup  ## trackers and matchers side by side (DATA=FOLDER: your own labelled video)
	@$(ENV) python -m atk_perception.bench_perception --output runs/bench_perception $(if $(DATA),--data $(DATA)) $(if $(filter 1,$(QUICK)),--quick)

bench-transfer: setup  ## the tasks' objects found in new scenes, against exact truth (ARGS="--follow" tracks them as well)
	@$(ENV) python -m atk_sim.bench_transfer $(ARGS)

bench-policy: setup  ## policy classes and encoders side by side: inference, training, held-out error (DATA=BAGS RUN=RUN_FOLDER: on yours; ARGS=...)
	@$(ENV) python -m atk_policy.bench_policy --output runs/bench_policy $(if $(DATA),--demonstrations $(DATA) --run-folder $(RUN)) $(if $(filter 1,$(QUICK)),--steps 200) $(ARGS)

# Tasks that `make benchmark` recorded, with their success in closed loop; else the demo's.
RECORDED := $(wildcard runs/benchmark/*/demonstrations/recorded.json)
bench-selection: setup  ## the automatic selection against the published one, on all recorded tasks or DATA="FOLDER..."; goes on where it was (ABLATION=1: one change at a time; STAGES="2 3": sets that differ by stage; SCALE=1: 1,000 made-up demonstrations; ARGS=...)
	@$(ENV) $(if $(filter 1,$(SCALE)),python -m atk_policy.bench_scale --output runs/bench_scale,python -m atk_policy.bench_selection $(or $(DATA),$(if $(RECORDED),,runs/demo/demonstrations)) --output runs/bench_selection $(if $(RECORDED),--benchmark runs/benchmark) $(if $(filter 1,$(ABLATION)),--ablation) $(if $(STAGES),--stages $(STAGES))) $(ARGS)

lint: setup  ## linters and types only
	@$(ENV) tools/test.sh lint

clean:  ## remove everything that was built, not the runs
	rm -rf .venv build install log
