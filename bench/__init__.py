"""Benchmarks, each one command: ``python -m bench.<name>``. Results with date and machine are in docs/benchmarks.md."""
