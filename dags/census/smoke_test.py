"""Predict with a deployed model through its signature, as a request would."""

import argparse
from pathlib import Path

# Before TensorFlow: it sets TensorFlow's log level.
from train import LABELS

import tensorflow as tf

PERSON = {
    "age": 39.0,
    "workclass": "State-gov",
    "education": "Bachelors",
    "education_num": 13.0,
    "marital_status": "Never-married",
    "occupation": "Adm-clerical",
    "relationship": "Not-in-family",
    "race": "White",
    "sex": "Male",
    "capital_gain": 2174.0,
    "capital_loss": 0.0,
    "hours_per_week": 40.0,
    "native_country": "United-States",
}


def main() -> None:
    """Load the model, predict, and check the prediction."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--deployed", type=Path, default="deployed", help="the folder of the model")
    deployed = parser.parse_args().deployed

    predict = tf.saved_model.load(str(deployed)).signatures["serving_default"]
    prediction = predict(**{name: tf.constant([value]) for name, value in PERSON.items()})
    label, probability = prediction["label"].numpy()[0].decode(), float(prediction["probability"].numpy()[0])
    print(f"Predicted {label}, with a probability of {probability:.3f} for {LABELS[1]}", flush=True)
    if label not in LABELS or not 0 <= probability <= 1:
        raise SystemExit("That is not a valid prediction.")


if __name__ == "__main__":
    main()
