"""The offline HTML report: one file, no network, charts by Vega-Lite, text that reads without."""

from gradience.audit.html.page import render

__all__ = ["render"]
