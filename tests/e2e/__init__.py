"""The product as its users meet it: npm SDKs and a browser against real processes."""
