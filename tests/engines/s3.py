"""An S3 store for the tests, as another team would run it, with one bucket and one pair of keys."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from airflow_training.local.process import LocalProcess, free_port
from tests.engines.listening import listens
from tests.patience import wait_for

BUCKET, PREFIX = "company", "machine learning/training"


class S3Server:
    """A store that a test may stop and start."""

    def __init__(self, folder: Path) -> None:
        port = free_port()
        self.url = f"http://127.0.0.1:{port}"
        self.access_key, self.secret_key = "COMPANYKEY", "c0mpany/s3cret+key"
        self.bucket = folder / "store" / BUCKET
        self.bucket.mkdir(parents=True)
        rclone = Path(sys.executable).with_name("rclone")
        self._port = port
        keys = f"{self.access_key},{self.secret_key}"
        serve = [str(rclone), "serve", "s3", "--config", os.devnull, "--addr", f"127.0.0.1:{port}", "--auth-key", keys]
        self._process = LocalProcess([*serve, str(folder / "store")], folder=folder, name="s3", env=os.environ)

    @property
    def options(self) -> tuple[str, ...]:
        """What tells a service to use it."""
        return ("--s3-endpoint", self.url, "--s3-bucket", BUCKET, "--s3-prefix", PREFIX)

    @property
    def environment(self) -> dict[str, str]:
        """The keys of the service."""
        return {"AWS_ACCESS_KEY_ID": self.access_key, "AWS_SECRET_ACCESS_KEY": self.secret_key}

    def start(self) -> None:
        self._process.start()
        wait_for(lambda: listens(("127.0.0.1", self._port)), "The S3 store")

    def stop(self) -> None:
        self._process.stop()


@contextmanager
def running_s3(folder: Path) -> Iterator[S3Server]:
    server = S3Server(folder)
    try:
        server.start()
        yield server
    finally:
        server.stop()
