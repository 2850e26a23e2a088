"""Put on the PYTHONPATH of an agent's process, where Python finds `sitecustomize` at its start."""
