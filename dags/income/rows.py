"""Read the census income data."""

import pandas as pd

COLUMNS = [
    "age",
    "workclass",
    "fnlwgt",
    "education",
    "education_num",
    "marital_status",
    "occupation",
    "relationship",
    "race",
    "sex",
    "capital_gain",
    "capital_loss",
    "hours_per_week",
    "native_country",
    "income",
]


def read(path: str) -> tuple[pd.DataFrame, pd.Series]:
    """Read a file, plain or .gz: its features, and the labels: 1 for an income above 50K, else 0."""
    # The test file starts with a comment, and its labels end in a period.
    rows = pd.read_csv(path, names=COLUMNS, skipinitialspace=True, comment="|", na_values="?")
    # fnlwgt is the number of people that a row represents, not their income.
    features = rows.drop(columns=["fnlwgt", "income"])
    text = features.select_dtypes("object")
    return features.astype(dict.fromkeys(text, "category")), rows["income"].str.startswith(">50K").astype(int)
