"""Who is calling: keys, tokens, issuers, revocations, limits of one caller."""
