"""Lets the tests of this folder import graph_models without making tests a package."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))
