"""Data in Parquet and Zarr: table schemas, manifests with their index, label stores."""
