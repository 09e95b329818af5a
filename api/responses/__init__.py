"""Responses: documents, problems (errors) and downloads."""
