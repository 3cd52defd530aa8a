"""Recipes: the settings of a run, one TOML file each. `alexnet-train --recipe NAME` reads them."""
