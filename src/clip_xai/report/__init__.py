"""What people look at: cards, pages and tables drawn from finished results."""
