"""Results of a re-scoring run: documents, exports, agreement with reviews, and the report as JSON and HTML."""
