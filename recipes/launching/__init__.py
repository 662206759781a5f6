"""From a config to a finished run: checks before Ray, Ray itself, the terminal."""
