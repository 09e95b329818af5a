"""Selection: the choice of a detector by synthetic defects, and what the chosen one can find."""
