"""What is written and read with care: files that appear whole, Parquet, locks, fingerprints, provenance, results."""
