"""AutoGen (agentchat): `adapter` is the entry, `model` the policy's client, `tracing` the spans."""
