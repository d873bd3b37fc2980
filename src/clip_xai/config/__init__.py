"""The command line and its configuration: composition, schemas and what was typed. Nothing here imports torch."""
