"""What models are trained for and judged by: one package, or one module, a task."""
