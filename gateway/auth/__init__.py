"""Authentication: keys, tokens, issuers, revocations, limits of one caller."""
