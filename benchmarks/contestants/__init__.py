"""One file for each group of contestants; each is a program of its own, run by `benchmarks.core.process`."""
