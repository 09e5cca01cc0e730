"""Prints which task it is of, and lines until a file `go` appears; then saves a folder that looks like a model."""

import os
import sys
import time
from pathlib import Path

print("arguments", *sys.argv[1:], flush=True)
for name, value in os.environ.items():
    if name.startswith(("AIRFLOW_CTX_", "TRAINING_JOB_ID")):
        print(f"{name}={value}", flush=True)
number = 0
while not Path("go").exists():
    number += 1
    print(f"waiting {number}", flush=True)
    time.sleep(0.2)
model = Path("model/1")
model.mkdir(parents=True)
(model / "saved_model.pb").write_bytes(b"model")
print("saved", flush=True)
