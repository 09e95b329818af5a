"""Re-scoring: resumable runs over an archive with another model version or threshold, and what they would change."""
