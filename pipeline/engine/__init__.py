"""Stages and their units: plans, staleness, runs on a cluster, verification, garbage."""
