"""What is read out of a job's files: curves, usage, the model's signatures."""
