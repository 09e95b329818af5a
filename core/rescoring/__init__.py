"""Re-scoring: resumable passes over an archive with another model version or threshold, and what they would change."""
