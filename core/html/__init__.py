"""HTML reports: templates, rendering and charts."""
