"""Files: atomic writes, Parquet, locks, fingerprints, provenance, and the schemas of results and predictions."""
