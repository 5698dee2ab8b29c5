#!/bin/sh
# What the benchmarks have to say on a GPU, in one call; figures go to the folder given, or to out/.
#   benchmarks/gpu.sh out [python]
set -eu
out=${1:-out}
python=${2:-python}
mkdir -p "$out"
for model in vit_b vit_h; do
    "$python" -m benchmarks.propose --device cuda --model $model --images 8 --json "$out/propose_$model.json"
done
"$python" -m benchmarks.propose --device cuda --model sandbox --images 50 --json "$out/propose_sandbox.json"
