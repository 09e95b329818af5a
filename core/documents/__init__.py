"""The JSON that clients get: documents, webhook payloads, exports, and results as OPC UA names them."""
