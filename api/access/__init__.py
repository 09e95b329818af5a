"""What a request passes first: authentication, rate limits, and the limits of its body."""
