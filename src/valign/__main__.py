"""`python -m valign` is the command line."""

from valign.cli import main

main()
