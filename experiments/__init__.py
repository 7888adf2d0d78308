"""The studies of docs/experiments: one command each, from the text to the tables and pictures of its page."""
