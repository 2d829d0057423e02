"""How the documentation is built: ``make docs``."""

import sys
from pathlib import Path

HERE = Path(__file__).parent
sys.path.insert(0, str(HERE))
sys.path.insert(0, str(HERE.parent))

import reference  # noqa: E402

from worker import __version__  # noqa: E402

reference.write(HERE / "reference")

project = "facestream"
version = release = __version__
extensions = ["myst_parser"]
myst_enable_extensions = ["colon_fence"]
myst_heading_anchors = 3
smartquotes = False  # options such as --images and quotes stay as they can be typed
html_theme = "furo"
html_title = f"facestream {__version__}"
html_copy_source = False
html_show_sphinx = False
exclude_patterns = ["build"]
