"""The scoring of minibatches: claim, load, decode in isolation, score and finish."""
