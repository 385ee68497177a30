"""The Task protocol's shared parts; see each task's own file for what it means."""
