# Two commands do everything: `make demo` and `make test`. Each sets up .venv first when needed.
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed
DEMO ?= build/demo
# Where torch comes from, e.g. https://download.pytorch.org/whl/cpu; by default where pip looks.
TORCH_INDEX ?=
export OMP_NUM_THREADS ?= 1
export PIP_DISABLE_PIP_VERSION_CHECK = 1

.PHONY: demo test test-pages test-portable test-slow test-gpu test-thirdparty test-comfyui lint stress bench truth paper docs train emoji figures clean

demo: $(STAMP)
	OMP_NUM_THREADS=$${ASCED_THREADS:-2} $(BIN)/asced demo --out $(DEMO) --overwrite

test: lint
	$(BIN)/python -m pytest -n 2 --dist loadgroup -m "not slow and not stress and not gpu and not pages"

# What a reader follows, run whole: notebooks, examples of functions and of --help, the whole paths of the
# demo and of docs/own-pipeline.md, an installation without torch, the documentation's build.
test-pages: $(STAMP)
	$(BIN)/python -m pytest -n 2 --dist loadgroup -m pages

# Numbers once more as a processor with AVX2 alone gives them, in one thread: no tolerance may
# depend on the last bits of this one.
PORTABLE := tests/detection/test_streaming.py tests/detection/test_primitives.py \
	tests/replay/test_best_of.py tests/replay/test_lookahead.py tests/replay/test_renewing.py
test-portable: $(STAMP)
	ATEN_CPU_CAPABILITY=default ONEDNN_MAX_CPU_ISA=AVX2 OMP_NUM_THREADS=1 $(BIN)/python -m pytest \
		-q -n 2 --dist loadgroup -m "not slow and not stress and not gpu" $(PORTABLE)

test-slow: $(STAMP)
	$(BIN)/python -m pytest -m "slow and not stress and not gpu"

test-gpu: $(STAMP)
	$(BIN)/python -m pytest -m gpu tests/recorders/test_accelerator.py

THIRDPARTY := tests/stores/test_other_readers.py tests/recorders/test_schedulers_gaussian.py \
	tests/recorders/test_watching.py tests/replay/test_loops.py
# Loops of other libraries, at the versions of constraints.txt: their own dependencies (torchvision,
# trainers' logging) are not needed to sample. Readers of stores: tensorstore, zarrs, and zarrita where
# npm is.
test-thirdparty: $(STAMP)
	$(BIN)/python -m pip install --quiet --no-deps -c constraints.txt k-diffusion \
		denoising-diffusion-pytorch smalldiffusion azula torchdiffeq torchsde trampoline einops \
		ema-pytorch tensorstore zarrs ml_dtypes
	if command -v npm; then npm install --silent --no-audit --no-fund --prefix build/node zarrita; fi
	$(BIN)/python -m pytest -m thirdparty $(THIRDPARTY)

# ComfyUI's own engine, from a checkout beside the project (nothing of it is copied), in an
# environment of its own, which takes torch and all that is installed already from .venv.
COMFYUI ?= ../ComfyUI
COMFYUI_BIN := build/comfyui/bin
test-comfyui: $(COMFYUI)/nodes.py build/comfyui/.installed
	COMFYUI=$(abspath $(COMFYUI)) $(COMFYUI_BIN)/python -m pytest -q tests/comfyui

$(COMFYUI)/nodes.py:
	@echo "There is no ComfyUI in $(COMFYUI):"
	@echo "  git clone https://github.com/comfyanonymous/ComfyUI ../ComfyUI"
	@echo "  make test-comfyui COMFYUI=../ComfyUI"
	@exit 2

build/comfyui/.installed: $(STAMP) tests/comfyui/requirements.txt
	$(BIN)/python -m venv --without-pip build/comfyui
	$(BIN)/python tests/comfyui/environment.py $(COMFYUI_BIN)/python
	$(BIN)/python -m pip --python $(COMFYUI_BIN)/python install --quiet --no-deps \
		-r tests/comfyui/requirements.txt
	touch $@

lint: $(STAMP)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

stress: $(STAMP)
	$(BIN)/python -m pytest -m stress -s --timeout 5400

# Ratios within one run: `make bench BENCH=stores` for one group of rows.
BENCH ?= *
bench: $(STAMP)
	for file in benchmarks/bench_$(BENCH).py; do $(BIN)/python $$file || exit 1; done

# Tables 1 and 2, figures 4, 7 and 8 of the paper on 1,024 runs of fashion: about an hour of
# one core. Other runs, pipelines and real images: `make paper PAPER="--store runs.zarr ..."`.
PAPER ?=
paper: $(STAMP)
	$(BIN)/python -m experiments.paper $(PAPER)

# Detectors and corrections on sets whose truth is known, into docs/results: about two hours of one
# core, and 36 minutes more where the model of SIMPLE SHAPES is missing and is trained. Needs
# Fashion-MNIST (training/fashion_mnist.py). `make truth NATURAL=runs.zarr` takes 10,240 recorded
# runs instead of recording them. Interrupted, the same command goes on; without
# build/truth/results it measures anew.
NATURAL ?=
SHAPES := experiments/models/shapes/model_index.json
$(SHAPES): | $(STAMP)
	$(BIN)/python -m experiments.models.shapes.train

truth: $(STAMP) $(SHAPES)
	$(BIN)/python -m experiments.truth --resume $(if $(NATURAL),--natural $(NATURAL))
	$(BIN)/python -m experiments.tables.truth

# The embedded model: two one-thread processes on two cores; interrupt and resume at any time.
train: $(STAMP)
	$(BIN)/torchrun --nproc-per-node 2 -m training.train_fashion
	$(BIN)/python -m training.train_classifiers

# The second model, for experiments: 64x64 colour emoji, fetched by npm. Interrupt and resume at any
# time; afterwards `python -m experiments.models.emoji.export` writes the weights.
emoji: $(STAMP)
	$(BIN)/python -m experiments.models.emoji.fetch
	$(BIN)/torchrun --nproc-per-node 2 -m experiments.models.emoji.train

# The tutorials show what the notebooks printed when they were last run; `make docs` runs them anew
# where one changed.
EXECUTED := build/notebooks
$(EXECUTED)/.done: $(STAMP) $(wildcard notebooks/*.ipynb)
	ASCED_EXECUTED=$(CURDIR)/$(EXECUTED) $(BIN)/python -m pytest -q -k runs tests/project/test_notebooks.py
	touch $@

docs: $(EXECUTED)/.done
	$(BIN)/sphinx-build -W --keep-going -q docs docs/_build/html

# Every picture and figure of the README.
figures: demo
	$(BIN)/python -m training.describe_fashion
	$(BIN)/python docs/make_figures.py

$(STAMP): pyproject.toml constraints.txt
	$(PYTHON) -m venv $(VENV)
	if [ -n "$(TORCH_INDEX)" ]; then $(BIN)/python -m pip install --quiet -c constraints.txt torch \
		--index-url $(TORCH_INDEX); fi
	$(BIN)/python -m pip install --quiet -c constraints.txt -e ".[dev]"
	touch $@

clean:
	rm -rf build dist $(VENV)
