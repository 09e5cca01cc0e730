"""The vocabulary of training jobs: what is asked for, what is sent, what comes back. No input, no output."""
