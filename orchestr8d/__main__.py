"""`python -m orchestr8d` is the command line."""

from orchestr8d.cli import main

main()
