"""What the commands of the command line do; `selfhost_transport.cli` only reads their options."""
