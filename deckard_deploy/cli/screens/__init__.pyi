# The modules of this package; scripts/generate.py writes this file.
from deckard_deploy.cli.screens import bench as bench
from deckard_deploy.cli.screens import compare as compare
from deckard_deploy.cli.screens import figures as figures
from deckard_deploy.cli.screens import findings as findings
from deckard_deploy.cli.screens import inspect as inspect
from deckard_deploy.cli.screens import layout as layout
from deckard_deploy.cli.screens import live as live
from deckard_deploy.cli.screens import memory as memory
from deckard_deploy.cli.screens import patches as patches
from deckard_deploy.cli.screens import plan as plan
from deckard_deploy.cli.screens import quantize as quantize
from deckard_deploy.cli.screens import replicas as replicas
from deckard_deploy.cli.screens import shared as shared
from deckard_deploy.cli.screens import speed as speed
from deckard_deploy.cli.screens import startup as startup
from deckard_deploy.cli.screens import transfer as transfer
from deckard_deploy.cli.screens import transfer_live as transfer_live
