"""GPT-2 on a CPU without PyTorch: a kernel in C, its packed weights, and the engine that Python drives."""
