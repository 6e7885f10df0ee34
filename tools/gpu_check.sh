#!/usr/bin/env bash
# On a machine with a GPU: builds the extension with its CUDA kernels, runs the tests that need a GPU, and writes one table of
# benchmarks: operators, training steps and inference against torchvision, the share of a step that the GPU computes.
# Takes less than nine minutes: what there is no time left for is left out, and said.
#
#     tools/gpu_check.sh [OUT]              OUT: folder for table.md and tests.txt (work_dirs/gpu_check)
#     tools/gpu_check.sh OUT families       instead of Faster R-CNN: training and inference of every other family
#     PYTHON=.venv/bin/python tools/gpu_check.sh
set -uo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
python=${PYTHON:-python3}
out=${1:-work_dirs/gpu_check}
mkdir -p "$out"
export PYTHONPATH=$PWD${PYTHONPATH:+:$PYTHONPATH}
deadline=$((SECONDS + 530))
failed=()

# limited SECONDS ARGUMENTS...: runs Python so long at most.
limited() {
    local cap=$1 left=$((deadline - SECONDS))
    shift
    if [ $left -le 0 ]; then
        echo "no time left for: $*"
        return 124
    fi
    timeout $((left < cap ? left : cap)) "$python" "$@"
}

# table SECONDS HEADING ARGUMENTS...: a section of the table, of what the command prints. A failure is no reason to stop.
table() {
    local cap=$1 heading=$2
    shift 2
    printf '\n## %s\n\n    python %s\n\n' "$heading" "$*" | tee -a "$out/table.md"
    limited "$cap" "$@" 2>"$out/errors.txt" | tee -a "$out/table.md"
    local code=${PIPESTATUS[0]}
    if [ "$code" -ne 0 ]; then
        tail -n 5 "$out/errors.txt"
        echo "exit code $code" | tee -a "$out/table.md"
        failed+=("$heading")
    fi
}

"$python" -c 'import sys, torch; sys.exit(not torch.cuda.is_available() and "torch finds no GPU here")' || exit 1
# For this GPU alone: it halves the time to compile.
TORCH_CUDA_ARCH_LIST=${TORCH_CUDA_ARCH_LIST:-$("$python" -c 'import torch; print("%d.%d" % torch.cuda.get_device_capability())')}
export TORCH_CUDA_ARCH_LIST
FRDET_CUDA=1 limited 150 ops/build.py || exit 1
"$python" tools/doctor.py | tee "$out/table.md"

# measure FAMILY BATCH COMMAND [ARGUMENT...]: beside torchvision.
measure() {
    local family=$1 batch=$2 command=$3
    shift 3
    table 40 "$family, $command, $batch images $*" \
        tools/benchmark.py "$command" --family "$family" --against torchvision --device cuda --batch "$batch" "$@"
}

if [ "${2:-}" = families ]; then
    for family in mask_rcnn retinanet fcos faster_rcnn_v2 retinanet_v2 mask_rcnn_v2; do
        measure "$family" 8 train --amp --rounds 10
        measure "$family" 1 infer --amp --rounds 10
    done
else
    limited 150 -m pytest -q -x -p no:cacheprovider \
        tests/models/detectors/test_host_waits.py tests/tools/test_benchmark.py::test_share_of_the_gpu \
        tests/ops/test_nms.py tests/ops/test_roi_align.py tests/ops/test_max_iou.py tests/ops/test_registration.py \
        tests/ops/test_errors.py 2>&1 | tee "$out/tests.txt"
    [ "${PIPESTATUS[0]}" -eq 0 ] || failed+=('tests')

    table 60 'Share of a training step that the GPU computes' tools/benchmark.py gpu --batch 6 16
    for batch in 6 16; do
        measure faster_rcnn $batch train
        measure faster_rcnn $batch train --amp
    done
    for batch in 1 8; do
        measure faster_rcnn $batch infer
        measure faster_rcnn $batch infer --amp
    done
    table 120 'Operators' tools/benchmark.py ops --device cuda --rounds 20
fi

echo "The table is $out/table.md"
if [ ${#failed[@]} -gt 0 ]; then
    printf 'failed: %s\n' "${failed[@]}"
    exit 1
fi
