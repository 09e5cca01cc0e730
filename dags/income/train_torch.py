"""Train a small network on the census income data in the processes that torchrun starts. Writes `model.pt`."""

import argparse
import json

import pandas as pd
import torch
from rows import read
from torch import distributed, nn
from torch.nn.parallel import DistributedDataParallel
from torch.utils.data import DataLoader, DistributedSampler, TensorDataset


def encode(features: pd.DataFrame, columns: pd.Index) -> torch.Tensor:
    """Categories become a column for each value."""
    return torch.tensor(pd.get_dummies(features).reindex(columns=columns, fill_value=0).to_numpy("float32"))


def main() -> None:
    """Train in all processes; the first one reports, tests and saves."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--epochs", type=int, default=3)
    parser.add_argument("--learning-rate", type=float, default=0.005)
    arguments = parser.parse_args()
    torch.manual_seed(1)
    distributed.init_process_group("gloo")
    rank = distributed.get_rank()

    features, labels = read("adult.data.gz")
    columns = pd.get_dummies(features).columns
    rows = TensorDataset(encode(features, columns), torch.tensor(labels.to_numpy("float32")))
    # Each process trains with other rows, and all with the mean of their gradients.
    sampler = DistributedSampler(rows, seed=1)
    print(f"rank {rank} of {distributed.get_world_size()}: {len(sampler)} rows", flush=True)
    network = nn.Sequential(nn.BatchNorm1d(len(columns)), nn.Linear(len(columns), 64), nn.ReLU(), nn.Linear(64, 1))
    model = DistributedDataParallel(network)
    optimizer = torch.optim.Adam(model.parameters(), arguments.learning_rate)
    for epoch in range(1, arguments.epochs + 1):
        sampler.set_epoch(epoch)
        for batch, expected in DataLoader(rows, batch_size=256, sampler=sampler):
            loss = nn.functional.binary_cross_entropy_with_logits(model(batch).squeeze(1), expected)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
        if rank == 0:
            print(json.dumps({"epoch": epoch, "metrics": {"loss": round(loss.item(), 4)}}), flush=True)

    if rank == 0:
        features, labels = read("adult.test.gz")
        with torch.no_grad():
            predicted = network.eval()(encode(features, columns)).squeeze(1) > 0
        accuracy = (predicted.numpy() == labels.to_numpy()).mean().item()
        torch.save({"network": network.state_dict(), "columns": list(columns)}, "model.pt")
        print(json.dumps({"metrics": {"accuracy": accuracy}}))
    distributed.destroy_process_group()


if __name__ == "__main__":
    main()
