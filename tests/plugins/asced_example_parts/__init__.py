"""Parts for asced-analysis that its own code has never heard of."""
