"""The messages of a turn: headers, codec, conversation tree, view, state machine.  No I/O."""
