"""A Celery worker in this process, with the broker in memory: `cifar doctor` asks workers over the broker."""

from collections.abc import Iterator
from contextlib import contextmanager

from celery import Celery
from celery.contrib.testing.worker import start_worker
from celery.signals import setup_logging

# With a receiver of this signal Celery leaves the loggers alone, which other tests look at.
setup_logging.connect(lambda **_: None, weak=False)


@contextmanager
def worker(queue: str) -> Iterator[None]:
    """A worker for two tasks at a time."""
    own = Celery(broker="memory://", set_as_current=False)
    own.conf.update(broker_transport_options={"polling_interval": 0.1})
    options = {"pool": "threads", "concurrency": 2, "hostname": f"{queue}@here"}
    with start_worker(own, queues=[queue], perform_ping_check=False, **options):
        yield
