"""The report as a page for a browser: one file, made of the JSON values alone, that asks nothing of the network."""

from gpt2kit.evaluation.page.page import html_page

__all__ = ["html_page"]
