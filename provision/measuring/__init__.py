"""Measurement, stage by stage: what is run, what came back, the window, the verdict."""
