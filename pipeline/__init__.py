"""The machinery: config, stages, staleness, manifests, stores.

Knows no network and imports no stage; cli.py alone knows which stages there are.
"""
