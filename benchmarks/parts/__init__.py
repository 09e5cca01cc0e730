"""What benchmarks are made of: none is run by itself."""
