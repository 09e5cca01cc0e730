"""Measure `model.joblib` on rows that it was not trained with, and fail if it is not good enough."""

import argparse
import json

import joblib
from rows import read

parser = argparse.ArgumentParser()
parser.add_argument("--least-accuracy", type=float, required=True)
least = parser.parse_args().least_accuracy

accuracy = joblib.load("model.joblib").score(*read("adult.test.gz"))
print(json.dumps({"metrics": {"accuracy": accuracy}}))
if accuracy < least:
    raise SystemExit(f"An accuracy of {accuracy:.4f} is not enough: at least {least:.4f} is required.")
