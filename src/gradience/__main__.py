"""`python -m gradience` is the command line."""

from gradience.cli.main import main

main()
