"""Benchmarks of gpt2kit and its peers: `make bench-train`, and likewise -generate, -data, -quality.

What is measured and how is told in docs/benchmarks.md. `core/` runs contestants in processes of their own, in turn, and
writes the tables; `contestants/` has one file for each group of contestants; the modules here are the programs.
"""
