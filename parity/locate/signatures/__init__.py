"""What known traps look like in numbers: one small function each, in modules by subject."""
