"""Running contestants in turn, each in a process of its own, and writing the figures. Without torch: see `process`."""
