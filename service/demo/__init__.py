"""THE DEMO: a model trained over three hospitals on a stack of its own, from nothing to its scores.

`runner` goes the whole way, `lifecycle` gathers what the topic says, `report` shows the end. The `demo`
command is its only caller.
"""
