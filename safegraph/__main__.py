"""`python -m safegraph`: the command line."""

from safegraph.cli import main

main()
