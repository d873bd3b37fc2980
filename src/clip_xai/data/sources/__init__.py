"""One small adapter for each publisher; `SOURCES` names them in the order of the manifest."""
