"""EVENT IN: every record of the inbound topics takes effect once, or becomes a dead letter; none is skipped.

`consumer` reads batches and hands them to the store, whose transaction moves the consumer's offset together
with the effects; `decode` turns a record into an item of a batch; `poison` finds the one record that spoils
a batch; `dlq_limit` notices that (nearly) everything is undecodable and stops before the topic is drained.
"""
