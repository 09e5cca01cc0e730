"""Train the census model with PyTorch, in two processes that exchange their gradients.

The data set is "Adult", UCI Machine Learning Repository; see census/README.md for its license.
"""

from __future__ import annotations

from airflow.sdk import DAG

from airflow_training.operators.training import TrainingOperator

with DAG(dag_id="train_pytorch", schedule=None, tags=["training"], doc_md=__doc__):
    TrainingOperator(
        task_id="train",
        job_name="train-pytorch",
        source_dir="income",
        script="train_torch.py",
        launcher="torchrun --standalone --nproc-per-node 2",
        data={"adult.data.gz": "census/adult.data.gz", "adult.test.gz": "census/adult.test.gz"},
        args={"epochs": 3, "learning-rate": 0.005},
        environment={"OMP_NUM_THREADS": 1},
        model="model.pt",
        requirements=["torch==2.13.0", "pandas==2.3.3"],
        image="python:3.12",
        completion_time="30m",
        resources={"cpus": 2, "memory": 4096},
    )
