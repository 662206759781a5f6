"""Runs in MLflow and Weights & Biases, written by the launcher's process: no worker knows of them, nor waits for them."""
