"""Prints its inputs, before and after its wait, and fails."""

import os
import sys
import time
from pathlib import Path

print("arguments", sys.argv[1:], flush=True)
print("variables", os.environ["TRACKER"], os.environ["STORE"], os.environ["API_KEY"], flush=True)
print("ready", flush=True)
while not Path("go").exists():
    time.sleep(0.05)
print("again", os.environ["TRACKER"], flush=True)
sys.exit(f"ended with {os.environ['STORE']}")
