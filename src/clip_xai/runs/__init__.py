"""The three jobs: here alone configuration, Lightning and the rooms below meet."""
