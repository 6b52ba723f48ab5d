"""The arithmetic of the one transformer: layers that know `Config`, no family, no file and no task."""
