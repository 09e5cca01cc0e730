"""Predict the income of the people in `people.gz` with `model.joblib`. Writes `predictions.csv`."""

import joblib
from rows import read

people, _ = read("people.gz")
people["probability"] = joblib.load("model.joblib").predict_proba(people)[:, 1].round(4)
people.to_csv("predictions.csv", index=False)
print(f"{len(people)} people")
