"""The messages of a turn: headers, codec, conversation tree, view, prompt. Pure: no I/O, no clock."""
