"""What a study of ablations has found: statistics, tables and a page."""
