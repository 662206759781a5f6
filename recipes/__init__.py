"""The T5 training recipe: config -> data -> plan -> engine -> loop -> metrics and checkpoints -> report."""
