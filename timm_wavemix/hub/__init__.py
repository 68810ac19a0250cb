"""Models on the Hugging Face Hub: their files, cards and metadata, and the command that publishes them."""
