"""Optimizers that look at whole parameters while every rank holds only pieces of them."""
