"""Trainings that use what Airflow has: functions, assets, mapping, and a place of one's own for the model."""

from __future__ import annotations

from typing import Any

from airflow.sdk import DAG, Asset, Context, get_current_context, task

model = Asset("a_model")

with DAG("producer", schedule=None):

    @task.training(
        image="python:3", completion_time="10m", outlets=[model], model_destination="{{ dag_run.conf['destination'] }}"
    )
    def train(accuracies: list[float], name: str = "model") -> None:
        """Say how good it gets, and save when told to go on."""
        import json
        import time
        from pathlib import Path

        for number, accuracy in enumerate(accuracies, start=1):
            print(json.dumps({"metrics": {"accuracy": accuracy}, "epoch": number}), flush=True)
        print(f"3/3 - 1s - 2ms/step - loss: {sum(accuracies):.4f}", flush=True)
        while not Path("go").exists():
            time.sleep(0.1)
        Path(name, "1", "variables").mkdir(parents=True)
        Path(name, "1", "saved_model.pb").write_text("a model")
        Path(name, "1", "variables", "variables.index").write_text("its variables")

    train(accuracies=[0.5, 0.75])

with DAG("consumer", schedule=[model]):

    @task
    def deploy() -> Any:
        """Hand on what is known of the model that made this run start."""
        context: Context = get_current_context()
        (event,) = context["triggering_asset_events"][model]
        return dict(event.extra)

    deploy()
