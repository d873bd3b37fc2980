"""The programs that a user starts: prepare, train, evaluate, explain, export, search. No library imports one."""
