"""One module a kind of page: pure functions from the code to Markdown."""
