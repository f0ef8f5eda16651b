#!/usr/bin/env bash
# LocalAI starts a backend as `run.sh --addr HOST:PORT`, in the backend's own folder.
set -euo pipefail

folder=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
python=$folder/venv/bin/python
[ -x "$python" ] || python=python3

# exec: signals, and the watch over the parent, are for rillm itself.
exec "$python" -m rillm localai --exit-with-parent "$@"
