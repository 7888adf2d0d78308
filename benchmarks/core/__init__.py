"""Running contestants in turn, each in a process of its own, and writing what came out. Without torch: see `process`."""
