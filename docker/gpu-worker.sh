#!/bin/bash
# A worker of the queue `gpu`. Where the machine has several GPUs each worker takes one that no other has: it keeps a
# lock on a file named after it, in a folder that the workers of a machine share, for as long as it runs.
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
        echo "every GPU of this machine has its worker already: scale gpu-worker to at most $(wc -w <<<"$uuids")" >&2
        exit 1
    fi
else
    echo "this worker sees no GPU and trains on the CPU (docker-compose.gpu.yaml hands it the GPUs)"
fi
# Told to stop, Celery would wait for a training of hours, until it is killed. So it breaks it off at once; at the next
# start the training goes on from its last checkpoint.
export REMAP_SIGTERM=SIGQUIT
# Workers need not hear of each other: messages between them grow with the square of their number.
exec python -m cifar_tasks.deployment.compose.airflow_component celery worker --queues gpu --concurrency 1 --celery-hostname "gpu@%h" --without-gossip --without-mingle
