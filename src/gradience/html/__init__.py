"""Offline HTML reports: one file, no network, charts by Vega-Lite, text that reads without."""
