"""The job API: one module for each resource, and what they share."""
