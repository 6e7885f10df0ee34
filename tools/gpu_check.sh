#!/usr/bin/env bash
# On a machine with a GPU: builds the extension with its CUDA kernels, runs the operators' tests on both devices, and writes
# one table of benchmarks. Takes less than nine minutes.
#
#     tools/gpu_check.sh [OUT]      OUT: folder for table.md and tests.txt (work_dirs/gpu_check)
#     PYTHON=.venv/bin/python tools/gpu_check.sh
set -uo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
python=${PYTHON:-python3}
out=${1:-work_dirs/gpu_check}
mkdir -p "$out"
export PYTHONPATH=$PWD${PYTHONPATH:+:$PYTHONPATH}

"$python" -c 'import sys, torch; sys.exit(not torch.cuda.is_available() and "torch finds no GPU here")' || exit 1
# For this GPU alone: it halves the time to compile.
TORCH_CUDA_ARCH_LIST=${TORCH_CUDA_ARCH_LIST:-$("$python" -c 'import torch; print("%d.%d" % torch.cuda.get_device_capability())')}
export TORCH_CUDA_ARCH_LIST
FRDET_CUDA=1 timeout 150 "$python" ops/build.py || exit 1
"$python" tools/doctor.py

# A failure is no reason to leave the benchmarks out.
timeout 210 "$python" -m pytest -q -x -p no:cacheprovider \
  tests/ops/test_nms.py tests/ops/test_roi_align.py tests/ops/test_max_iou.py tests/ops/test_registration.py \
  tests/ops/test_errors.py 2>&1 | tee "$out/tests.txt"
tested=${PIPESTATUS[0]}

timeout 150 "$python" tools/benchmark_ops.py --device cuda --rounds 20 --out "$out/table.md"
measured=$?
echo "tests: exit code $tested; benchmarks: exit code $measured; the table is $out/table.md"
exit $((tested || measured))
