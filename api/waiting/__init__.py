"""Long polls: requests that wait for something to become final, or for new entries of the feed."""
