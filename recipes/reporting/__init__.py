"""What a run leaves to be read: metrics files, pictures, and the run's page."""
