"""From the results of each benchmark to its tables in Markdown."""
