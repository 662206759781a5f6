"""The proof that each schedule is what the installed libraries apply: rows, and how they are run."""
