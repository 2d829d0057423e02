"""How good it is: verification, identification, calibration, audits."""
