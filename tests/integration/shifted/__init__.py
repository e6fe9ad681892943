"""Put on PYTHONPATH as a folder: its sitecustomize shifts a process's clock before anything runs."""
