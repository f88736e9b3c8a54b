"""A judged bench as JSON, Markdown, one HTML page, and a page for the terminal."""
