"""What `linewatch doctor` checks. Each check works while the parts that others check are down."""
