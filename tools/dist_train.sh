#!/usr/bin/env bash
# Several processes on this machine, one for each GPU, or on the CPU: tools/dist_train.sh CONFIG PROCESSES [options of train.py]
# Several machines: NNODES, NODE_RANK, MASTER_ADDR and PORT, the same command on each. PYTHON names the interpreter.
set -euo pipefail

if [ $# -lt 2 ]; then
    echo "usage: $0 CONFIG PROCESSES [options of train.py]" >&2
    exit 2
fi
targets=("$1")
processes="$2"
shift 2

root=$(cd "$(dirname "$0")/.." && pwd)
if [ -n "${MASTER_ADDR:-}" ]; then
    rendezvous=(--nnodes="${NNODES:-1}" --node-rank="${NODE_RANK:-0}" --master-addr="$MASTER_ADDR" --master-port="${PORT:-29500}")
else
    rendezvous=(--standalone) # picks a free port, so that two runs do not meet
fi
# torchrun would give each process one thread.
threads=$(($(nproc) / processes))
export OMP_NUM_THREADS="${OMP_NUM_THREADS:-$((threads > 0 ? threads : 1))}"
# torchrun passes on those it names; sbatch --signal=USR1 is common.
export PET_SIGNALS_TO_HANDLE="${PET_SIGNALS_TO_HANDLE:-SIGTERM,SIGINT,SIGHUP,SIGQUIT,SIGUSR1}"
exec "${PYTHON:-python}" -m torch.distributed.run "${rendezvous[@]}" --nproc-per-node="$processes" \
    "$root/tools/train.py" "${targets[@]}" --launcher pytorch "$@"
