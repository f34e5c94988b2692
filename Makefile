# Facts -> dataset -> LoRA -> GGUF -> Ollama -> measured.  `make` alone prints the targets.
#   PRESET=tiny runs any stage with the embedded base; TORCH_BACKEND=cpu installs torch without CUDA's libraries.
#   SET="epochs=2 lora_r=16" overrides settings of the preset and always trains.
#   TASK=path/my_task.toml takes your own task: its folder in artifacts/ and its model have the name in that file.
TASK   ?= terminology
PRESET ?= mistral_7b
TYPE   ?= q4_k_m
LIMIT  ?= 74
SET    ?=

VENV   ?= .venv
PYTHON ?= $(VENV)/bin/python
READY  := $(VENV)/installed

SHIPPED   := contract/tasks/terminology.toml
TASK_FILE := $(if $(filter %.toml,$(TASK)),$(TASK),contract/tasks/$(TASK).toml)
# The first text of a key in the task's TOML, in characters that a path and a model's name may have.
key = $(shell sed -n "s/^$(1) *= *[\"']\([^\"']*\).*/\1/p" $(TASK_FILE) 2>/dev/null | head -n 1 | tr -c 'A-Za-z0-9_./\n-' _)
TASK_NAME := $(or $(subst /,_,$(call key,name)),$(basename $(notdir $(TASK))))
FACTS     := $(wildcard $(shell find $(dir $(TASK_FILE))$(call key,facts) -type f 2>/dev/null))
# Only the shipped task's model is called medical-mistral: no other task replaces it in an Ollama.
NAME ?= $(if $(filter $(SHIPPED),$(TASK_FILE)),medical-mistral,$(TASK_NAME))$(if $(filter tiny smollm2,$(PRESET)),:$(PRESET))
DATASET := artifacts/$(TASK_NAME)/dataset
RUN     := artifacts/$(TASK_NAME)/$(PRESET)
CONTRACT := $(wildcard plumbing/*.py plumbing/*.toml contract/*.py contract/tasks/*.toml contract/bases/*.toml models/*.py)

.DEFAULT_GOAL := help
.PHONY: help setup demo test lint dataset finetune quantize ask register evaluate types parity attribute release clean

help: ## list the targets
	@awk -F ':.*## ' '/^[a-z]+:.*## / {printf "  make %-10s %s\n", $$1, $$2}' Makefile

setup: $(READY) ## make .venv and install everything (uv; pass TORCH_BACKEND=cpu to do without CUDA)
$(READY): pyproject.toml constraints.txt scripts/setup.sh
	VENV=$(VENV) scripts/setup.sh

demo: ## the whole pipeline with the embedded tiny base, in a few minutes on a CPU
	@$(MAKE) --no-print-directory PRESET=tiny run-demo
.PHONY: run-demo
run-demo: $(RUN)/model/manifest.json $(RUN)/model-f16/manifest.json $(RUN)/model-base/manifest.json
	@$(PYTHON) -m scripts.demo $(RUN) --data $(DATASET) --name $(NAME) --limit $(LIMIT)

test: $(READY) ## every test (those on the real Ollama need one: scripts/install_ollama.sh)
	OMP_NUM_THREADS=1 $(PYTHON) -m pytest

lint: $(READY) ## ruff (format and check), mypy (contract/) and the facts
	$(VENV)/bin/ruff format --check .
	$(VENV)/bin/ruff check .
	$(VENV)/bin/mypy
	$(PYTHON) -m data_gen.lint

MAKE_DATASET = $(PYTHON) -m data_gen $(TASK) --out $(DATASET)
dataset: $(READY) ## facts -> dataset, its card and its leak certificate; the same bytes every time
	$(MAKE_DATASET)
$(DATASET)/manifest.json: $(shell find data_gen -type f ! -name '*.pyc') $(CONTRACT) $(wildcard $(TASK_FILE)) $(FACTS) | $(READY)
	$(MAKE_DATASET)

finetune: $(RUN)/adapter/manifest.json ## dataset -> LoRA adapter (PRESET=mistral_7b: one CUDA GPU; tiny, smollm2: CPU)
TRAINER := $(wildcard finetune/*.py finetune/parallel/*.py) $(wildcard finetune/bases/tiny/*)
$(RUN)/adapter/manifest.json: $(DATASET)/manifest.json finetune/presets/$(PRESET).toml $(TRAINER) $(if $(strip $(SET)),always) | $(READY)
	$(PYTHON) -m finetune $(PRESET) --data $(DATASET) --out $(RUN)/adapter $(SET:%=--set %)
.PHONY: always
always:

quantize: $(RUN)/model/manifest.json ## adapter + base -> GGUF (TYPE=q4_k_m) and Modelfile
QUANTIZE := $(wildcard quantize/*.py) Modelfile
$(RUN)/model/manifest.json: $(RUN)/adapter/manifest.json $(QUANTIZE)
	$(PYTHON) -m quantize $(RUN)/adapter --out $(RUN)/model --type $(TYPE)
$(RUN)/model-f16/manifest.json: $(RUN)/adapter/manifest.json $(QUANTIZE)
	$(PYTHON) -m quantize $(RUN)/adapter --out $(RUN)/model-f16 --type f16
$(RUN)/model-base/manifest.json: $(RUN)/adapter/manifest.json $(QUANTIZE)
	$(PYTHON) -m quantize $(RUN)/adapter --out $(RUN)/model-base --type $(TYPE) --base-only

export QUESTION ?=
ask: $(RUN)/model/manifest.json ## one QUESTION (default: the task's example) to the model in this process, without an Ollama
	@$(PYTHON) -m scripts.ask $(RUN)/model "$$QUESTION"

register: $(RUN)/model/manifest.json ## model -> the Ollama that answers at OLLAMA_HOST
	$(PYTHON) -m quantize.register $(RUN)/model $(NAME)

evaluate: $(DATASET)/manifest.json ## format adherence of the registered model on the test split
	$(PYTHON) -m eval.adherence --model $(NAME) --data $(DATASET) --out $(RUN)/report

TYPES ?= f16 bf16 q8_0 q6_k q5_k_m q5_k_s q4_k_m q4_k_s q3_k_m
TAG := $(NAME)$(if $(findstring :,$(NAME)),-,:)
types: $(RUN)/adapter/manifest.json ## adherence by quantisation: TYPES exported in one pass, registered as tags, measured
	@set -e; $(PYTHON) -m quantize $(RUN)/adapter --out $(RUN)/types/model --type $$(echo $(TYPES) | tr ' ' ','); \
	for type in $(TYPES); do \
	  $(PYTHON) -m quantize.register $(RUN)/types/model $(TAG)$$type --type $$type; \
	  $(PYTHON) -m eval.adherence --model $(TAG)$$type --data $(DATASET) --limit $(LIMIT) --out $(RUN)/types/report-$$type; \
	done

parity: $(RUN)/model/manifest.json ## is the served prompt, token by token, the trained one?
	$(PYTHON) -m eval.parity $(RUN)/model --model $(NAME) --data $(DATASET)

attribute: $(RUN)/model/manifest.json $(RUN)/model-f16/manifest.json ## at which step, from adapter to Ollama, did answers change?
	$(PYTHON) -m eval.attribute $(RUN) --data $(DATASET) --limit $(LIMIT)

release: register ## may it be published?  certificate, self-test, parity and gate, one line for each
	$(PYTHON) -m scripts.release --data $(DATASET) --model-dir $(RUN)/model --model $(NAME) \
	  --gate eval/gates/$(PRESET).toml --out $(RUN)/release

clean: ## remove artifacts/ (datasets, adapters, models, reports)
	rm -rf artifacts
