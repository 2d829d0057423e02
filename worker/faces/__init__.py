"""Faces in a picture, and the vector of each: detectors, quality, alignment, networks and what runs them."""

import sys

# OpenVINO and NNCF report each import and each conversion to an analytics host, and put a client id into the home.
# Without this package they do neither. They have no other switch that leaves the user's own settings alone. Every
# process that loads them passes through here first.
sys.modules.setdefault("openvino_telemetry", None)  # type: ignore[arg-type]
