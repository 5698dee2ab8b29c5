"""The machinery: config, stages, staleness, manifests, stores.

Knows no network and imports no stage.
"""
