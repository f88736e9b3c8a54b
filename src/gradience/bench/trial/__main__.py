"""`python -m gradience.bench.trial`."""

from gradience.bench.trial.run import main

main()
