#!/usr/bin/env bash
# Makes the virtual environment $VENV (default .venv) and installs the project's packages under constraints.txt.
#   TORCH_BACKEND=cpu scripts/setup.sh     # passed on to uv's --torch-backend: torch without CUDA's libraries
set -euo pipefail
VENV=${VENV:-.venv}
PYTHON3=${PYTHON3:-python3}
die() { echo "error: $*" >&2; exit 1; }

"$PYTHON3" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null || die "Python 3.11 or newer is wanted as $PYTHON3; name another with PYTHON3=..."
{ command -v cc && command -v c++; } >/dev/null || die "no C/C++ compiler: llama-cpp-python is compiled here (Debian, Ubuntu: apt install build-essential)"
if [ ! -x "$VENV/bin/python" ]; then
  "$PYTHON3" -m venv "$VENV" >/dev/null 2>&1 || { rm -rf "$VENV"; die "$PYTHON3 -m venv failed (Debian, Ubuntu: apt install python3-venv)"; }
fi
"$VENV/bin/python" -m pip install -q --disable-pip-version-check uv

extras=(--extra data --extra train --extra export --extra serve --extra eval --extra test)
if command -v nvidia-smi >/dev/null && nvidia-smi >/dev/null 2>&1; then extras+=(--extra unsloth); fi
# GGML_NATIVE=ON crashes on Q4_K models where gcc 12 meets a CPU with AMX; the portable build is as fast for our sizes.
CMAKE_ARGS="${CMAKE_ARGS:--DGGML_NATIVE=OFF -DLLAVA_BUILD=OFF -DLLAMA_OPENSSL=OFF}" \
  "$VENV/bin/uv" pip install --compile-bytecode --python "$VENV/bin/python" -r pyproject.toml "${extras[@]}" -c constraints.txt \
  ${TORCH_BACKEND:+--torch-backend "$TORCH_BACKEND"}
touch "$VENV/installed"
