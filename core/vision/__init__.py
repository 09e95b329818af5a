"""The neural part: from images to scores, thresholds and reports. It never touches the database."""
