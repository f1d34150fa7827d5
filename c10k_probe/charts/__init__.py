"""Pictures of a run, made from its folder alone: in the terminal and as image files."""
