"""The session in Redis: one Lua file per state change behind a typed function."""
