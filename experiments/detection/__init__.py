"""Who breaks, and where: detectors against the truth, false-alarm rates, transfer."""
