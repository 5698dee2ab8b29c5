#!/bin/sh
# What the benchmarks have to say on a GPU, in one call; figures go to the folder given, or to out/.
#   benchmarks/gpu.sh out [python [weights]]
# SAM's checkpoints and CLIP's open_clip_model.safetensors (ViT-B-16 of OpenAI) are taken from the
# folder `weights` by their published names; what is not there has random weights.
set -eu
out=${1:-out}
python=${2:-python}
weights=${3:-weights}
mkdir -p "$out"
clip=
if [ -f "$weights/open_clip_model.safetensors" ]; then
    clip="--clip-weights $weights/open_clip_model.safetensors"
fi
for model in vit_b vit_h; do
    file=$(find "$weights" -name "sam_${model}_*.pth" 2>/dev/null | head -n 1)
    # shellcheck disable=SC2086 # options and nothing are both meant
    "$python" -m benchmarks.propose --device cuda --model $model ${file:+--weights "$file"} \
        --images 8 --json "$out/propose_$model.json"
    "$python" -m benchmarks.pseudolabel --device cuda --sam $model ${file:+--sam-weights "$file"} \
        $clip --images 64 --repeats 2 --json "$out/pseudolabel_$model.json"
done
"$python" -m benchmarks.propose --device cuda --model sandbox --images 50 \
    --json "$out/propose_sandbox.json"
"$python" -m benchmarks.pseudolabel --device cuda --images 256 --repeats 2 \
    --json "$out/pseudolabel_sandbox.json"
"$python" -m benchmarks.train --only step --device cuda --encoder tu-resnet101s.gluon_in1k \
    --crop-px 321 --steps 20 --json "$out/train_resnet101.json"
"$python" -m benchmarks.train --device cuda --steps 20 --json "$out/train_sandbox.json"
