"""`python -m spyhop` is the command line."""

from spyhop.cli import main

main()
