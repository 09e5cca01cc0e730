"""Benchmarks, each beside a point of comparison."""
