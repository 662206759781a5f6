"""What a run would need and how long it would take, on paper: memory per GPU and time per update for ZeRO stages and nodes.

Not the batch plan: which examples an update trains on is `recipes.data.plan`.
"""
