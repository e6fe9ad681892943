"""Sphinx settings; `make docs` builds with warnings as errors."""

project = "taskflow"
extensions = ["myst_parser"]
source_suffix = {".md": "markdown"}
exclude_patterns = ["_build"]
html_theme = "alabaster"
nitpicky = True
myst_heading_anchors = 3
