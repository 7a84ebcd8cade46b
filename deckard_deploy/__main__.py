"""`python -m deckard_deploy` is `deckard-deploy`."""

from deckard_deploy.cli.main import main

main()
