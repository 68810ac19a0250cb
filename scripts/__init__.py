"""What a person runs in a checkout."""
