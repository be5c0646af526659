"""The lease of a training, which is checked while it trains. Needs torch; the lease itself does not."""

from cifar_tasks.storage.lease import Lease
from cifar_tasks.training import callbacks


class LeaseCallback(callbacks.Callback):
    """Ends a training with `LeaseLost` once its lease may have passed to another process."""

    def __init__(self, lease: Lease) -> None:
        self._lease = lease

    def on_step(self, progress: callbacks.Progress) -> None:  # noqa: ARG002
        self._lease.check()

    def on_epoch_end(self, snapshot: callbacks.Snapshot) -> None:  # noqa: ARG002
        self._lease.check()
