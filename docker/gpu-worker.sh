#!/bin/bash
# A worker of the queue `gpu`. Each worker of a machine takes one GPU that no other has: until it ends it locks a file
# with the name of the GPU, in a folder that the workers of the machine share.
set -euo pipefail
if command -v nvidia-smi >/dev/null && uuids=$(nvidia-smi --query-gpu=uuid --format=csv,noheader 2>/dev/null) && [ -n "$uuids" ]; then
    for uuid in $uuids; do
        exec {lock}>"${GPU_LOCKS:-/gpus}/$uuid"
        if flock --nonblock "$lock"; then
            export CUDA_VISIBLE_DEVICES=$uuid
            echo "this worker trains on $uuid"
            break
        fi
        exec {lock}>&-
    done
    if [ -z "${CUDA_VISIBLE_DEVICES:-}" ]; then
        echo "every GPU of this machine has a worker: scale gpu-worker to at most $(wc -w <<<"$uuids")" >&2
        exit 1
    fi
else
    echo "this worker sees no GPU and trains on the CPU (docker-compose.gpu.yaml gives it the GPUs)"
fi
# On SIGTERM Celery waits for a training of hours. With SIGQUIT it interrupts the training, which resumes at the next
# start from its last checkpoint.
export REMAP_SIGTERM=SIGQUIT
# The machine's cores are shared by all workers, the CPU quota of this container is this worker's own.
export CIFAR_QUOTA_SLOTS=1
# Messages between workers grow with the square of their number, and nothing needs them.
exec python -m cifar_tasks.deployment.compose.airflow_component celery worker --queues gpu --concurrency 1 --celery-hostname "gpu@%h" --without-gossip --without-mingle
