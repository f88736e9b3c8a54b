"""What lies in HF_HOME beside the caches that have kinds of their own: above all, the login."""

from gradience.storage.inventory.caches.plain import children, named

HF_HOME = children(
    title="Hugging Face home",
    holds="Your login token, and settings and metrics of evaluate and accelerate.",
    what="directory",
    recoverable="unknown",
    how="Keep it: the login token lies here.",
    variable="hf_home",
    owns=named(".*"),  # none of it is ever chosen
)
