#!/usr/bin/env bash
# Makes the virtual environment beside run.sh. Arguments go to pip: `--extra-index-url ...` for
# torch's build without CUDA, for one. Set RILLM to what to install where this folder stands alone.
set -euo pipefail

folder=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd -P)
source=$folder/..
[ -f "$source/pyproject.toml" ] || source=${RILLM:-rillm}

python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install "$@" "$source[localai]"
