"""Measure a model on rows that it was not trained with; fail if it is poor, or worse than the deployed one."""

import argparse
import json
from pathlib import Path

# Before TensorFlow: it sets TensorFlow's log level.
from train import LABELS, Features, read_data

import numpy as np
import tensorflow as tf


def accuracy(folder: Path, features: Features, labels: np.ndarray) -> float:
    """Load a SavedModel and return the fraction of rows that its signature predicts correctly."""
    predict = tf.saved_model.load(str(folder)).signatures["serving_default"]
    columns = {
        name: tf.constant(values.tolist(), predict.structured_input_signature[1][name].dtype)
        for name, values in features.items()
    }
    predicted = predict(**columns)["label"].numpy() == LABELS[1].encode()
    return float(np.mean(predicted == (labels == 1)))


def main() -> None:
    """Measure and compare."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--test_data", type=Path, default="adult.test.gz")
    parser.add_argument("--candidate", type=Path, default="candidate", help="the folder of the new model")
    parser.add_argument("--deployed", type=Path, default="deployed", help="the folder of the deployed model, if any")
    parser.add_argument("--least_accuracy", type=float, default=0.8)
    parser.add_argument("--tolerance", type=float, default=0.005, help="how much worse than the deployed one it may be")
    arguments = parser.parse_args()
    features, labels = read_data(arguments.test_data)

    metrics = {"accuracy": accuracy(arguments.candidate, features, labels)}
    if arguments.deployed.is_dir():
        metrics["deployed_accuracy"] = accuracy(arguments.deployed, features, labels)
    print(json.dumps({"metrics": metrics}), flush=True)
    least = max(arguments.least_accuracy, metrics.get("deployed_accuracy", 0) - arguments.tolerance)
    if metrics["accuracy"] < least:
        raise SystemExit(f"An accuracy of {metrics['accuracy']:.4f} is not enough: at least {least:.4f} is required.")


if __name__ == "__main__":
    main()
